"""The output folder of a comparison: it holds one spec, one log and one configuration a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_json
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline.run import first_difference

_IDENTITY = "comparison_of.json"


def take_folder(out: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Takes a folder for a comparison, and notes what it is of; `add_models` notes the models.

    A folder in which no model was taken holds nothing but encoded data, which are removed where it
    is of another comparison.

    Args:
        out: `OUT`.
        identity: What must stay the same, plain values; `models` holds model -> its configuration,
            of which only the models of both calls are held against each other.
        overwrite: Whether a folder of another comparison is emptied.

    Raises:
        UserError: The folder is of another comparison, or holds something else.
    """
    path, ours = out / _IDENTITY, _plain(identity)
    models: dict[str, Any] = {}
    if not path.exists():
        if out.is_dir() and any(out.iterdir()):
            raise UserError(
                f"The folder '{out}' holds files, and they are of no comparison.",
                received=f"no {_IDENTITY} in it",
                fix="choose another --out",
            )
    else:
        known = _read(path)
        known.pop("rates", None)  # of a folder from before calls could differ in them
        both = [name for name in known["models"] if name in ours["models"]]
        theirs = {**known, "models": {n: _with_defaults(known["models"][n]) for n in both}}
        mine = {**ours, "models": {name: ours["models"][name] for name in both}}
        difference = first_difference(theirs, mine)
        if difference is not None and known["models"] and not overwrite:
            rename = ""
            if difference.startswith("models."):  # all else is the same: the folder can hold both
                rename = "give the model another name (--models wide=mmoe), "
            raise UserError(
                f"The folder '{out}' was made by another comparison.",
                received=difference,
                fix=f"{rename}choose another --out, or empty it with --overwrite",
            )
        if difference is not None and known["models"]:
            shutil.rmtree(out)
        elif difference is not None:
            shutil.rmtree(out / "data", ignore_errors=True)
        else:
            models = known["models"]
    write_json(path, {**ours, "models": models})


def add_models(out: Path, models: Mapping[str, Any]) -> None:
    """Notes models that are about to be trained in a folder that was taken.

    Until then a call that is refused binds no later one to its configurations.

    Args:
        out: `OUT`.
        models: Model -> its configuration, plain values.
    """
    known = _read(out / _IDENTITY)
    write_json(out / _IDENTITY, {**known, "models": {**known["models"], **_plain(models)}})


def _with_defaults(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored configuration with what earlier versions did not know; as it is, if it is none."""
    try:
        return UpstreamConfig.model_validate(model).model_dump(mode="json")
    except (UserError, ValidationError):
        return model


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it is read back."""
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
