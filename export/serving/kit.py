"""Writes the kit: configuration of the server, compose file and Kubernetes manifest."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lfm4ads_tf.errors import ExportRefused, UserError, nearest
from lfm4ads_tf.export.blessing import read_blessing
from lfm4ads_tf.export.publishing import versions
from lfm4ads_tf.export.serving import model_config
from lfm4ads_tf.export.serving.model_config import CANARY, STABLE, ServedModel
from lfm4ads_tf.export.wire.model_target import ModelTarget
from lfm4ads_tf.export.wire.retry_policy import Deadline
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.export.wire.transport import open_transport
from lfm4ads_tf.files import write_text

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).parent
_COPIED = ("batching.config", "monitoring.config", "compose.yaml", "README.md")
_MIB = 1 << 20
_SERVER_MIB = 1024
_STATUS_S = 5.0


@dataclass(frozen=True)
class KitOptions:
    """How the kit is made.

    Attributes:
        base_path: Folder of the exports inside the container.
        keep: Versions of each model that are loaded.
        latest: Whether the server takes the newest versions by itself, without labels.
        keep_labels: Whether labels that are in use stay where they are.
        promote: Models whose `stable` moves to the newest version; "all" stands for all.
        labels: Model -> label -> version.
        server: Address of a server that is asked which versions it has loaded; when absent, those
            of the present `models.config` count as loaded.
    """

    base_path: str = "/models"
    keep: int = 2
    latest: bool = False
    keep_labels: bool = False
    promote: Collection[str] = ()
    labels: Mapping[str, Mapping[str, int]] | None = None
    server: str | None = None


def write_kit(
    exports: Path, folder: Path, options: KitOptions | None = None
) -> dict[str, ServedModel]:
    """Writes the kit for a folder of exports, or writes it again after a change of the exports.

    Each file is replaced by one rename; `models.config` comes last. The folder itself stays the
    same: a container that has it mounted would not see another one under its name.

    Args:
        exports: Folder of models with their versions.
        folder: Where the kit goes; the labels of a `models.config` that is there are kept or moved.
        options: See the class.

    Returns:
        Model -> what is served of it.

    Raises:
        UserError: Nothing can be served, an option names what is not there, the server does not
            answer, or the place cannot be written.
    """
    options = options or KitOptions()
    if options.keep < 1:
        raise UserError("At least one version is served.", received=options.keep)
    if not options.base_path.startswith("/"):
        raise UserError(
            "The base path is an absolute path inside the container.", received=options.base_path
        )
    blessed = blessed_versions(exports)
    wanted = _wanted(blessed, options)
    earlier = model_config.read_model_config(folder / "models.config")
    loaded = {} if options.server is None else _loaded(options.server, list(blessed))
    models = {
        name: model_config.plan(
            numbers,
            earlier.get(name),
            keep=options.keep,
            wanted=wanted.get(name),
            move=not options.keep_labels,
            loaded=loaded.get(name),
        )
        for name, numbers in blessed.items()
    }
    if not options.latest:
        _warn_of_gone_labels(models, wanted)
    base_path = options.base_path.rstrip("/")
    config = model_config.render(models, base_path, options.keep if options.latest else None)
    memory = _memory(exports, models)
    path = f"/v1/models/{quote(next(iter(models)), safe='')}"
    for name in _COPIED:
        write_text(folder / name, (_HERE / name).read_text("utf-8"))
    environment = {
        "EXPORTS": f"'{exports.resolve()}'",
        "BASE_PATH": base_path,
        "HEALTH_MODEL": path.rpartition("/")[2],
        "MEMORY": f"{memory}m",
    }
    write_text(folder / ".env", "".join(f"{k}={v}\n" for k, v in environment.items()))
    write_text(folder / "kubernetes.yaml", _kubernetes(config, base_path, path, memory))
    write_text(folder / "models.config", config)
    return models


def blessed_versions(exports: Path) -> dict[str, list[int]]:
    """Model -> its versions that were blessed and have not changed since, ascending.

    Raises:
        UserError: There is none.
    """
    if not exports.is_dir():
        raise UserError(
            f"There is no folder '{exports}'.", fix="name a folder of exports, such as OUT/exports"
        )
    blessed: dict[str, list[int]] = {}
    for model in sorted(p for p in exports.iterdir() if p.is_dir() and p.name[:1] != "."):
        for version in versions(model):
            try:
                read_blessing(model / str(version), model.name)
            except ExportRefused as refused:
                _LOG.warning("%s/%d is left out: %s", model.name, version, refused)
            else:
                blessed.setdefault(model.name, []).append(version)
    if not blessed:
        raise UserError(
            f"No blessed version lies in '{exports}'.",
            fix="export with `train.py export`, or find out why with "
            f"`python -m lfm4ads_tf.export.verify {exports}`",
        )
    return blessed


def _wanted(blessed: Mapping[str, list[int]], options: KitOptions) -> dict[str, dict[str, int]]:
    """The labels that the options ask for."""
    labels = options.labels or {}
    for name in [*labels, *(n for n in options.promote if n != "all")]:
        if name not in blessed:
            raise UserError(
                f"There is no model '{name}' to serve.{nearest(name, blessed)}",
                received=f"models {', '.join(blessed)}",
            )
    wanted = {
        name: {STABLE: numbers[-1]}
        for name, numbers in blessed.items()
        if name in options.promote or "all" in options.promote
    }
    for name, by_label in labels.items():
        for label, version in by_label.items():
            if version not in blessed[name]:
                raise UserError(
                    f"'{label}' of '{name}' cannot point at version {version}: it is not there, or "
                    "not blessed.",
                    received=f"versions {', '.join(map(str, blessed[name]))}",
                )
            wanted.setdefault(name, {})[label] = version
    return wanted


def _warn_of_gone_labels(
    models: Mapping[str, ServedModel], wanted: Mapping[str, Mapping[str, int]]
) -> None:
    """Says where labels go whose version was deleted or rolled back; `canary` moves anyway."""
    for name, model in models.items():
        for label, version in model.gone.items():
            if label == CANARY or label in wanted.get(name, {}):
                continue
            now, later = model.labels[label], model.waiting.get(label)
            if now == version:
                where = f"answers nothing until the server has loaded {later}"
            elif later is not None:
                where = f"points at {now} until the server has loaded {later}"
            else:
                where = f"points at {now} now"
            _LOG.warning(
                "%s: '%s' pointed at version %d, which is gone: deleted by a publication "
                "(export.keep), or rolled back. It %s. Move it with --label %s:%s=VERSION.",
                name,
                label,
                version,
                where,
                name,
                label,
            )


def _loaded(server: str, models: Collection[str]) -> dict[str, list[int]]:
    """Model -> versions that a server has loaded."""
    transport = open_transport(server)
    loaded: dict[str, list[int]] = {}
    try:
        for name in models:
            try:
                states = transport.status(ModelTarget(name), Deadline(_STATUS_S))
            except ServingError as error:
                if error.code != "NOT_FOUND":
                    raise
                states = []  # a model that is new
            loaded[name] = [entry["version"] for entry in states if entry["state"] == "AVAILABLE"]
    finally:
        transport.close()
    return loaded


def _memory(exports: Path, models: Mapping[str, ServedModel]) -> int:
    """MiB for the server and twice what the listed versions hold, in steps of 256.

    Twice: a version that replaces another is loaded while that one still serves, and loading reads
    files of the variables' size.
    """
    held = sum(
        file.stat().st_size
        for name, model in models.items()
        for version in model.versions
        for file in (exports / name / str(version)).rglob("*")
        if file.is_file()
    )
    return _SERVER_MIB + -(-2 * held // (256 * _MIB)) * 256


def _kubernetes(config: str, base_path: str, status_path: str, memory: int) -> str:
    templates = Environment(
        loader=FileSystemLoader(_HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("kubernetes.yaml").render(
        config=config, base_path=base_path, status_path=status_path, memory=f"{memory}Mi"
    )
