"""An export that is loaded in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.skew.replay_target import Outputs


class InProcessModel:
    """A version folder, loaded in this process; a `ServedModel`.

    Args:
        folder: The version folder.

    Raises:
        UserError: It cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        try:
            self._model: Any = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"The export '{folder}' cannot be loaded.",
                received=_first_line(error),
                fix="export the model again: `train.py export`",
            ) from error

    def run(self, signature: str, examples: Sequence[bytes]) -> Outputs:
        """See `ServedModel.run`."""
        if signature not in self._model.signatures:
            raise UserError(
                f"The export '{self.where}' has no signature '{signature}'.",
                received=f"signatures {', '.join(sorted(self._model.signatures))}",
                fix="an earlier version made it: export the model again with `train.py export`",
            )
        function = self._model.signatures[signature]
        try:
            return {k: v.numpy() for k, v in function(examples=tf.constant(examples)).items()}
        except tf.errors.OpError as error:
            raise UserError(
                f"'{signature}' of '{self.where}' fails on the logged rows.",
                received=_first_line(error),
                fix="correct the rows, or export the model again",
            ) from error

    def close(self) -> None:
        """See `ServedModel.close`."""
        self._model = None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
