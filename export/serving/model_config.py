"""`models.config`: which versions a server loads, and what its labels point at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError

STABLE, CANARY = "stable", "canary"


@dataclass
class ServedModel:
    """One model of the configuration.

    Attributes:
        versions: Versions that are loaded, ascending.
        labels: Label -> version.
        waiting: Labels that move when the server has loaded their version: label -> version.
    """

    versions: list[int]
    labels: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)


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
    it is the newest version too. The server reads labels before versions and refuses a
    configuration that moves a label in use to a version that it has not loaded. So such a label
    stays for now, its next version is loaded, and the plan made after that moves it.

    Args:
        blessed: Versions that may be served, ascending, at least one.
        earlier: What the present configuration says.
        keep: How many of the newest versions are loaded.
        wanted: Label -> version, over the above.
        move: Whether labels that are in use may move.
        loaded: Versions that the server has loaded; those of the present configuration when it
            was not asked.

    Returns:
        The versions hold every label's, the waiting ones' too.
    """
    before = {} if earlier is None else earlier.labels
    if loaded is None:
        loaded = [] if earlier is None else earlier.versions
    newest = blessed[-1]
    labels = {CANARY: newest, STABLE: before.get(STABLE, newest), **(wanted or {})}
    labels |= {label: v for label, v in before.items() if label not in labels or not move}
    # The version of a label was rolled back: the newest one is what a server falls back to.
    labels = {label: v if v in blessed else newest for label, v in labels.items()}
    held, waiting = {}, {}
    for label, version in sorted(labels.items()):
        old = before.get(label)
        if old in (None, version) or version in loaded:
            held[label] = version
            continue
        waiting[label] = version
        if old in blessed:
            held[label] = old
    versions = sorted({*blessed[-keep:], *held.values(), *waiting.values()})
    return ServedModel(versions, held, waiting)


def render(models: Mapping[str, ServedModel], base_path: str, latest: int | None = None) -> str:
    """The configuration as a ModelServerConfig text proto.

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
        "# Made by `python -m export.serving`. The server reads this file every 30 s, so a change\n"
        "# needs no restart.\n"
    )
    return head + text_format.MessageToString(config, as_utf8=True)


def read(path: Path) -> dict[str, ServedModel]:
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
    return {
        of.name: ServedModel(
            sorted(of.model_version_policy.specific.versions), dict(of.version_labels)
        )
        for of in config.model_config_list.config
    }
