"""The output folder of a comparison: it holds one spec, one log and one configuration a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_json
from lfm4ads_tf.pipeline.run import first_difference

_IDENTITY = "comparison_of.json"


def take_folder(out: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Takes a folder for a comparison, and notes what it is of; later calls may add models.

    Args:
        out: `OUT`.
        identity: What must stay the same, plain values; `models` holds model -> its configuration,
            of which only the models of both calls are held against each other.
        overwrite: Whether a folder of another comparison is emptied.

    Raises:
        UserError: The folder is of another comparison, or holds something else.
    """
    path = out / _IDENTITY
    ours = json.loads(json.dumps(identity))
    if not path.exists():
        if out.is_dir() and any(out.iterdir()):
            raise UserError(
                f"The folder '{out}' holds files, and they are of no comparison.",
                received=f"no {_IDENTITY} in it",
                fix="choose another --out",
            )
    else:
        known = json.loads(path.read_text("utf-8"))
        both = [name for name in known["models"] if name in ours["models"]]
        theirs = {**known, "models": {name: known["models"][name] for name in both}}
        mine = {**ours, "models": {name: ours["models"][name] for name in both}}
        difference = first_difference(theirs, mine)
        if difference is not None and not overwrite:
            raise UserError(
                f"The folder '{out}' was made by another comparison.",
                received=difference,
                fix="choose another --out, or empty it with --overwrite",
            )
        if difference is not None:
            shutil.rmtree(out)
        else:
            ours["models"] = {**known["models"], **ours["models"]}
    write_json(path, ours)
