"""Checkpoints with a data position, best weights and snapshots; all appear whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.cluster.launch import launch
from lfm4ads_tf.embeddings.placement.chief_files import checkpoint_options
from lfm4ads_tf.embeddings.storage import count_weights, read_tables, write_tables
from lfm4ads_tf.embeddings.table_index import INDEX
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import staged_folder, write_json, write_text
from lfm4ads_tf.interactions.scenario_choice import ScenarioChoice, tell_uncounted
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers

_LOG = logging.getLogger(__name__)
_PREFIX = "weights"
_TABLES = "tables"
_CURVE = "curve.json"
_LOSSES = "losses.json"
_GROUPS = "field_groups.json"
_BACK = "resumed_from.json"
_STEP = "position/step/.ATTRIBUTES/VARIABLE_VALUE"  # its name in TensorFlow's files


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        phase: The phase.
        batch: The next batch in it.
        step: Optimizer steps so far.
        losses: Name -> sum of a loss over the batches of the phase so far; None where they are not
            known: between phases, and in a checkpoint of a version that did not keep them.
    """

    phase: int = 0
    batch: int = 0
    step: int = 0
    losses: Mapping[str, float] | None = None


class TrainingCheckpoint:
    """Model, optimizer and position of one training run.

    Checkpoint n is `checkpoint/ckpt-<n>.*`, TensorFlow's files of all that is dense, and the
    folder `checkpoint/ckpt-<n>.tables` of the embedding tables and their slots, which is complete
    before TensorFlow's `checkpoint/checkpoint` names n as the latest; only then the oldest one is
    removed. Where a disk fills up on the way, what is there of n is removed, and those before it
    stay. Tables are written slice by slice: TensorFlow would copy each one whole.

    The state of a single optimizer is kept without its name, that of several under their names.

    Args:
        folder: Folder of the run; `checkpoint/` and `best/` live in it.
        model: The model, already built.
        optimizers: Its optimizers.
        keep: How many checkpoints are kept.
        writes: Whether this process writes and removes files; of several that train together, one
            does.
    """

    def __init__(
        self,
        folder: Path,
        model: tf_keras.Model,
        optimizers: ModelOptimizers,
        *,
        keep: int = 1,
        writes: bool = True,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._writes = writes
        self._model = model
        self._optimizers = optimizers
        self._parts = ModelParts(model)
        self._values = {
            name: tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
            for name in ("phase", "batch", "step")
        }
        counters = {name: _counters(o) for name, o in optimizers.optimizers.items()}
        moments = {name: _moments(o) for name, o in optimizers.optimizers.items()}
        single = len(counters) == 1
        self._beside = {
            "optimizer": next(iter(counters.values())) if single else counters,
            "dense_slots": next(iter(moments.values())) if single else moments,
            "position": self._values,
        }
        self._checkpoint = tf.train.Checkpoint(model=self._parts.dense, **self._beside)
        self._manager = self._new_manager()

    def save(
        self,
        phase: int,
        batch: int,
        step: int,
        history: list[dict[str, Any]] | None = None,
        curve: list[dict[str, Any]] | None = None,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        """Saves the state; `history` first, since a resumed run drops what lies ahead of it.

        Args:
            phase, batch, step, losses: See `Position`.
            history, curve: Entries so far; None leaves what was written.
        """
        if not self._writes:
            return
        if history is not None:
            self.write_history(history)
        if curve is not None:
            write_json(self._folder / _CURVE, curve)
        for name, value in (("phase", phase), ("batch", batch), ("step", step)):
            self._values[name].assign(value)
        # Counted, not named by step: the end of a phase and its last step are two saves, and the
        # files of the latest checkpoint must never be written over.
        number = 1 + max(self._kept(), default=0)
        with _disk(self._folder):
            try:
                prefix = self._folder / "checkpoint" / f"ckpt-{number}"
                with staged_folder(_tables_of(prefix)) as staging:
                    _write_tables(self._parts, staging, self._optimizers)
                    # beside the tables: complete before the checkpoint is named
                    write_json(staging / _LOSSES, losses)
                options = checkpoint_options()
                chosen = {} if options is None else {"options": options}
                self._manager.save(checkpoint_number=number, **chosen)
            finally:
                kept = self._kept()
                if number not in kept:
                    self._remove(number)
                    self._manager = self._new_manager()  # it may count what failed
                self._remove_other_tables(kept)

    def restore(self, number: int | None = None) -> Position:
        """Restores a checkpoint, if there is one, and returns its position.

        Args:
            number: Number of a kept checkpoint, from which training goes on: those after it are
                removed. None restores the latest one. Of the restarts of one launcher only the
                first goes back.

        Raises:
            UserError: The checkpoint is damaged, or its tables do not fit the model's, or it is of
                another model or of other optimizers; or there is none of this number.
        """
        if number is not None and self._went_back(number):
            number = None
        kept = self._kept()
        if number is not None and number not in kept:
            steps = [f"{n} (step {tf.train.load_variable(p, _STEP)})" for n, p in kept.items()]
            raise UserError(
                f"'{self._folder}' holds no checkpoint {number}.",
                received=f"--resume-from {number}; kept: {', '.join(steps) or 'none'}",
                fix="name a checkpoint that is kept, or leave the option out",
            )
        if not kept:
            return Position()
        chosen = max(kept) if number is None else number
        try:
            position = self._restored(kept[chosen])
        except UserError:
            earlier = ", ".join(str(n) for n in kept if n < chosen)
            if earlier:
                _LOG.warning(
                    "earlier checkpoints of '%s' are kept: %s; --resume-from goes on from one",
                    self._folder,
                    earlier,
                )
            raise
        if not self._writes:
            return position
        if chosen != max(kept):
            self._forget_after(chosen, kept)
        if number is not None and launch() is not None:
            write_json(self._folder / _BACK, {"to": number, "launch": launch()})
        return position

    def _went_back(self, number: int) -> bool:
        """Whether an earlier process of this launcher went back to a checkpoint already."""
        path = self._folder / _BACK
        if launch() is None or not path.exists():
            return False
        back: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return back == {"to": number, "launch": launch()}

    def _restored(self, prefix: str) -> Position:
        """Restores the checkpoint of a prefix."""
        tables = _tables_of(Path(prefix))
        _read_tables(self._parts, tables, self._optimizers)
        try:
            held = tf.train.Checkpoint(model=_held(self._parts, prefix), **self._beside)
            status = held.restore(prefix, checkpoint_options())
            status.assert_existing_objects_matched().expect_partial()
        except (
            AssertionError,
            ValueError,
        ) as error:  # others, or of other sizes
            raise UserError(
                f"The checkpoint '{prefix}' is of another model or of other optimizers.",
                received=str(error).splitlines()[0],
                fix="train with what it was made with, or remove its folder and train again",
            ) from error
        values = {name: int(v.numpy()) for name, v in self._values.items()}
        path = tables / _LOSSES
        losses = json.loads(path.read_text("utf-8")) if path.exists() else None
        return Position(values["phase"], values["batch"], values["step"], losses)

    def _new_manager(self) -> tf.train.CheckpointManager:
        return tf.train.CheckpointManager(
            self._checkpoint, str(self._folder / "checkpoint"), max_to_keep=self._keep
        )

    def _kept(self) -> dict[int, str]:
        """Number -> prefix of the kept checkpoints in order: those that the disk names."""
        state = tf.train.get_checkpoint_state(str(self._folder / "checkpoint"))
        prefixes = [] if state is None else list(state.all_model_checkpoint_paths)
        return {int(prefix.rpartition("-")[2]): prefix for prefix in prefixes}

    def _forget_after(self, number: int, kept: Mapping[int, str]) -> None:
        """Removes the checkpoints after a number, the list of them first."""
        folder = self._folder / "checkpoint"
        state = tf.train.get_checkpoint_state(str(folder))
        # names, not paths: a run folder may be moved
        names = [Path(prefix).name for n, prefix in kept.items() if n <= number]
        del state.all_model_checkpoint_paths[:], state.all_model_checkpoint_timestamps[len(names) :]
        state.all_model_checkpoint_paths.extend(names)
        state.model_checkpoint_path = names[-1]
        write_text(folder / "checkpoint", str(state))
        for later in kept:
            if later > number:
                self._remove(later)
        self._remove_other_tables(self._kept())
        self._manager = self._new_manager()

    def _remove(self, number: int) -> None:
        """Removes TensorFlow's files of a checkpoint."""
        for path in (self._folder / "checkpoint").glob(f"ckpt-{number}[._]*"):
            if path.is_file():
                path.unlink(missing_ok=True)
            elif path != _tables_of(self._folder / "checkpoint" / f"ckpt-{number}"):
                shutil.rmtree(path, ignore_errors=True)  # what TensorFlow had not yet renamed

    def _remove_other_tables(self, kept: Mapping[int, str]) -> None:
        """Removes the tables of all but the kept checkpoints."""
        folders = {_tables_of(Path(prefix)).name for prefix in kept.values()}
        for folder in (self._folder / "checkpoint").glob("ckpt-*.tables"):
            if folder.name not in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Writes the validation history that `history` reads."""
        if self._writes:
            write_json(self._folder / "history.json", history)

    def history(self, finished: Collection[str]) -> list[dict[str, Any]]:
        """Validation history of the finished phases; a killed run may have written one ahead."""
        return self._of_phases("history.json", finished)

    def curve(self, finished: Collection[str]) -> list[dict[str, Any]]:
        """Points of the watched rows after the finished phases."""
        return self._of_phases(_CURVE, finished)

    def _of_phases(self, name: str, finished: Collection[str]) -> list[dict[str, Any]]:
        path = self._folder / name
        if not path.exists():
            return []
        entries: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return [entry for entry in entries if entry["phase"] in finished]

    def save_best(self, name: str) -> None:
        """Keeps the weights of the best phase so far, and those that kept checkpoints may need."""
        if not self._writes:
            return
        best = self._folder / "best"
        older = sorted(best.glob("*"), key=os.path.getmtime) if best.exists() else []
        write_weights(self._model, best / name)
        for folder in older[: -self._keep]:
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
    """Writes a model's weights into a folder, replacing it.

    The dense weights are TensorFlow's `weights.*`; the embedding tables are in `tables/`, see
    `lfm4ads_tf.embeddings.storage`, and are written slice by slice.
    """
    parts = ModelParts(model)
    with staged_folder(folder) as staging, _disk(folder):
        _write_tables(parts, staging / _TABLES)
        tf.train.Checkpoint(model=parts.dense).write(str(staging / _PREFIX), checkpoint_options())


def read_weights(model: tf_keras.Model, folder: Path) -> None:
    """Reads what `write_weights` wrote; every variable of the model must be in it.

    Weights of versions that did not count the rows of scenarios leave the count at zero, with a
    warning.

    Raises:
        UserError: An embedding table is missing, damaged or does not fit, or other weights are
            missing or of other sizes.
    """
    parts = ModelParts(model)
    _read_tables(parts, folder / _TABLES)
    prefix = str(folder / _PREFIX)
    checkpoint = tf.train.Checkpoint(model=_held(parts, prefix))
    try:
        status = checkpoint.read(prefix, checkpoint_options())
        status.assert_existing_objects_matched().expect_partial()
    except (
        AssertionError,
        ValueError,
    ) as error:  # it lacks some, or has some of other sizes
        raise UserError(
            f"The weights in '{folder}' are of another model, or of other sizes than the model's.",
            received=str(error).splitlines()[0],
            fix="use the configuration that they were trained with",
        ) from error


def count_parameters(folder: Path) -> tuple[int, int]:
    """Weights in the tables and in all other layers that `write_weights` wrote."""
    tables = sum(count_weights(path.parent) for path in (folder / _TABLES).rglob(INDEX))
    stored = tf.train.list_variables(str(folder / _PREFIX))
    return tables, sum(math.prod(shape) for name, shape in stored if name.startswith("model/"))


def _held(parts: ModelParts, prefix: str) -> dict[str, Any]:
    """The dense variables, but for counts that an earlier version did not write: now zero."""
    counts = {id(c.rows) for c in parts.layers.values() if isinstance(c, ScenarioChoice)}
    paths = [path for path, variable in parts.dense.items() if id(variable) in counts]
    if not paths:
        return parts.dense
    stored = {name for name, _ in tf.train.list_variables(prefix)}
    # a path is one name of the checkpoint, in which TensorFlow escapes what separates names
    names = {path: path.replace(".", "..").replace("/", ".S") for path in paths}
    lacking = [p for p in paths if f"model/{names[p]}/.ATTRIBUTES/VARIABLE_VALUE" not in stored]
    for path in lacking:
        parts.dense[path].assign(tf.zeros_like(parts.dense[path]))
    if lacking:
        tell_uncounted(f"'{prefix}'")
    return {path: v for path, v in parts.dense.items() if path not in lacking}


def _counters(optimizer: HybridOptimizer) -> dict[str, tf.Variable]:
    return {
        "iterations": optimizer.iterations,
        "table_learning_rate": optimizer.table_learning_rate,
        "dense_learning_rate": optimizer.dense_learning_rate,
    }


def _moments(optimizer: HybridOptimizer) -> dict[str, dict[str, tf.Variable]]:
    return {
        "first_moments": optimizer.first_moments,
        "second_moments": optimizer.second_moments,
    }


def _write_tables(
    parts: ModelParts, folder: Path, optimizers: ModelOptimizers | None = None
) -> None:
    """One folder per embedding layer, and which fields weights read together, if some do."""
    if parts.field_groups:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _GROUPS, parts.field_groups)
    for path, layer in parts.embeddings.items():
        write_tables(folder / path, layer, None if optimizers is None else optimizers.of(layer))


def _read_tables(
    parts: ModelParts, folder: Path, optimizers: ModelOptimizers | None = None
) -> None:
    """The counterpart of `_write_tables`.

    Raises:
        UserError: Weights read other fields together here, whatever their sizes.
    """
    stored = folder / _GROUPS
    if parts.field_groups and stored.exists():
        written, ours = json.loads(stored.read_text("utf-8")), parts.field_groups
        for layer in ours:
            if [*written.get(layer, {}).values()] != [*ours[layer].values()]:
                raise UserError(
                    f"The weights in '{folder}' are of other groups of fields than the model's.",
                    received=f"{layer}: {written.get(layer)}, here {ours[layer]}",
                    fix="use the configuration that they were trained with, its groups or its "
                    "permutation among it",
                )
    for path, layer in parts.embeddings.items():
        read_tables(folder / path, layer, None if optimizers is None else optimizers.of(layer))


def _tables_of(prefix: Path) -> Path:
    """Where the tables of a training checkpoint are."""
    return prefix.with_name(f"{prefix.name}.{_TABLES}")
