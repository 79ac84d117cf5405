"""Checkpoints with a data position, best weights and snapshots; all appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.optimizers import HybridOptimizer
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import staged_folder, write_json

_PREFIX = "weights"


@dataclass(frozen=True)
class Position:
    """Where a run stands: the phase, the next batch in it, and the optimizer step."""

    phase: int = 0
    batch: int = 0
    step: int = 0


class TrainingCheckpoint:
    """Model, optimizer and position of one training run.

    Args:
        folder: Folder of the run; `checkpoint/` and `best/` live in it.
        model: The model.
        optimizer: Its optimizer, already built, so that sharded slots restore.
    """

    def __init__(self, folder: Path, model: tf_keras.Model, optimizer: HybridOptimizer) -> None:
        self._folder = folder
        self._model = model
        self._values = {
            name: tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
            for name in ("phase", "batch", "step")
        }
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=optimizer, position=self._values
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder / "checkpoint"), max_to_keep=1
        )

    def save(
        self, phase: int, batch: int, step: int, history: list[dict[str, Any]] | None = None
    ) -> None:
        """Saves the state; `history` first, since a resumed run drops what lies ahead of it."""
        if history is not None:
            write_json(self._folder / "history.json", history)
        for name, value in (("phase", phase), ("batch", batch), ("step", step)):
            self._values[name].assign(value)
        # The end of a phase and its last step are two saves: one must not overwrite the other.
        with _disk(self._folder):
            self._manager.save(checkpoint_number=2 * step + (batch == 0))

    def restore(self) -> Position:
        """Restores the latest checkpoint, if there is one, and returns its position."""
        latest = self._manager.latest_checkpoint
        if latest is None:
            return Position()
        self._checkpoint.restore(latest).assert_existing_objects_matched().expect_partial()
        values = {name: int(v.numpy()) for name, v in self._values.items()}
        return Position(values["phase"], values["batch"], values["step"])

    def history(self, finished: Collection[str]) -> list[dict[str, Any]]:
        """Validation history of the finished phases; a killed run may have written one ahead."""
        path = self._folder / "history.json"
        if not path.exists():
            return []
        entries: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return [entry for entry in entries if entry["phase"] in finished]

    def save_best(self, name: str) -> None:
        """Keeps the weights of the best phase so far, and only those of it and the one before."""
        best = self._folder / "best"
        older = sorted(best.glob("*"), key=os.path.getmtime) if best.exists() else []
        write_weights(self._model, best / name)
        for folder in older[:-1]:
            shutil.rmtree(folder, ignore_errors=True)

    def restore_best(self, name: str) -> None:
        """Restores the weights kept by `save_best`."""
        read_weights(self._model, self._folder / "best" / name)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turns what TensorFlow raises for a full or read-only disk into a message."""
    try:
        yield
    except (OSError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
        raise UserError(
            f"A checkpoint in '{folder}' cannot be written.",
            received=getattr(error, "strerror", None) or error,
            fix="check permissions and free space, then run the same command again",
        ) from error


def write_weights(model: tf_keras.Model, folder: Path) -> None:
    """Writes a model's weights into a folder, replacing it."""
    with staged_folder(folder) as staging, _disk(folder):
        tf.train.Checkpoint(model=model).write(str(staging / _PREFIX))


def read_weights(model: tf_keras.Model, folder: Path) -> None:
    """Reads what `write_weights` wrote; every variable of the model must be in it."""
    checkpoint = tf.train.Checkpoint(model=model)
    checkpoint.read(str(folder / _PREFIX)).assert_existing_objects_matched().expect_partial()
