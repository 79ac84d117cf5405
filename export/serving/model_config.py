"""`models.config`: which versions a server loads, and what its labels point at."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError

STABLE, CANARY = "stable", "canary"
_PROMOTED = "# stable so far: "


@dataclass
class ServedModel:
    """One model of the configuration.

    Attributes:
        versions: Versions that are loaded, ascending.
        labels: Label -> version.
        waiting: Labels that move when the server has loaded their version: label -> version.
        promoted: Versions that `stable` pointed at, up to the present one, ascending.
        gone: Labels whose version was deleted or rolled back: label -> that version.
    """

    versions: list[int]
    labels: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    promoted: list[int] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=dict)


def plan(
    blessed: list[int],
    earlier: ServedModel | None,
    *,
    keep: int = 2,
    wanted: Mapping[str, int] | None = None,
    move: bool = True,
    loaded: Collection[int] | None = None,
) -> ServedModel:
    """What to serve of one model.

    `canary` follows the newest version. `stable` stays where it is until it is promoted; at first
    it is the newest version too. When its version is gone, it goes back: to the newest version that
    it pointed at before, else to the oldest one that is loaded. It moves up by itself only when
    nothing older is left, and to the newest version only when there is no other.

    The server reads labels before versions and refuses a configuration that moves a label in use to
    a version that it has not loaded. So such a label stays for now, its next version is loaded, and
    the plan made after that moves it. A label whose version is gone points at another one meanwhile
    that would do; where none is loaded it stays too, and answers nothing until it can move.

    Args:
        blessed: Versions that may be served, ascending, at least one.
        earlier: What the present configuration says.
        keep: How many of the newest versions are loaded.
        wanted: Label -> version, over the above.
        move: Whether labels that are in use may move.
        loaded: Versions that the server has loaded; those of the present configuration when it
            was not asked.

    Returns:
        The versions hold every label's, the waiting ones' too, as far as they are there.
    """
    before = {} if earlier is None else earlier.labels
    promoted = [] if earlier is None else earlier.promoted
    if loaded is None:
        loaded = [] if earlier is None else earlier.versions
    newest = blessed[-1]
    first = newest
    if earlier is not None and earlier.versions:  # somebody else's configuration, without labels
        first = _fallback(newest + 1, promoted, blessed, loaded)
    labels = {CANARY: newest, STABLE: before.get(STABLE, first), **(wanted or {})}
    labels |= {label: v for label, v in before.items() if label not in labels or not move}
    gone = {label: v for label, v in sorted(before.items()) if v not in blessed}
    substitutes = {label: _fallback(v, promoted, blessed, loaded) for label, v in gone.items()}
    held, waiting = {}, {}
    for label, version in sorted(labels.items()):
        if version not in blessed:
            version = newest if label == CANARY else substitutes[label]
        old = before.get(label, version)
        if old == version or version in loaded:
            held[label] = version
            continue
        waiting[label] = version
        held[label] = substitutes[label] if substitutes.get(label) in loaded else old
    versions = {*blessed[-keep:], *held.values(), *waiting.values()} & set(blessed)
    stable = held[STABLE]
    passed = {v for v in promoted if blessed[0] <= v < stable} | {stable}
    return ServedModel(sorted(versions), held, waiting, sorted(passed), gone)


def _fallback(
    gone: int, promoted: Collection[int], blessed: list[int], loaded: Collection[int]
) -> int:
    """The version for a label whose own is gone, one that is loaded where the rules leave a choice.

    An older one that was promoted, the newest of them; else the oldest of the older ones; else the
    oldest of all, but not the newest: nobody has promoted that.
    """
    older = [v for v in blessed if v < gone]
    known = [v for v in reversed(older) if v in promoted]
    choice = known or older or blessed[:-1] or blessed
    return next((v for v in choice if v in loaded), choice[0])


def render(models: Mapping[str, ServedModel], base_path: str, latest: int | None = None) -> str:
    """The configuration as a ModelServerConfig text proto.

    Comments hold the versions that `stable` pointed at; `read` takes them from there.

    Args:
        models: Name -> what is served.
        base_path: Folder of the exports as the server sees it.
        latest: When given, the server takes this many of the newest versions by itself, and there
            are no labels: one would point at nothing after the next version is published.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for name, model in models.items():
        one = config.model_config_list.config.add(
            name=name, base_path=f"{base_path}/{name}", model_platform="tensorflow"
        )
        if latest is not None:
            one.model_version_policy.latest.num_versions = latest
            continue
        one.model_version_policy.specific.versions.extend(model.versions)
        for label, version in model.labels.items():
            one.version_labels[label] = version
    head = (
        "# Made by `python -m lfm4ads_tf.export.serving`. The server reads this file every\n"
        "# 30 s, so a change needs no restart.\n"
    )
    if latest is None:
        for name, model in models.items():
            head += f"{_PROMOTED}{json.dumps({name: model.promoted})}\n"
    return head + text_format.MessageToString(config, as_utf8=True)


def read_model_config(path: Path) -> dict[str, ServedModel]:
    """What a configuration serves; empty when there is none.

    Raises:
        UserError: The file is no ModelServerConfig.
    """
    if not path.exists():
        return {}
    try:
        config = text_format.Parse(
            path.read_text("utf-8"), model_server_config_pb2.ModelServerConfig()
        )
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(
            f"'{path}' is no model configuration.",
            received=error,
            fix="correct it, or delete it to begin with new labels",
        ) from error
    promoted = _promoted(path.read_text("utf-8"))
    return {
        model.name: ServedModel(
            sorted(model.model_version_policy.specific.versions),
            dict(model.version_labels),
            promoted=promoted.get(model.name, []),
        )
        for model in config.model_config_list.config
    }


def _promoted(text: str) -> dict[str, list[int]]:
    """Model -> versions that `stable` pointed at; a comment, because the server has no such field.

    A comment that somebody damaged counts as absent.
    """
    promoted: dict[str, list[int]] = {}
    for line in text.splitlines():
        if line.startswith(_PROMOTED):
            with contextlib.suppress(ValueError, TypeError):
                held = json.loads(line.removeprefix(_PROMOTED))
                if isinstance(held, dict):
                    promoted |= {
                        n: [v for v in listed if isinstance(v, int)] for n, listed in held.items()
                    }
    return promoted
