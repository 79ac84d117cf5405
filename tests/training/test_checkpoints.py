from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings import segments
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.placement.table_workers import working
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.example_batch import example_batch
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.training.checkpoints import (
    Position,
    TrainingCheckpoint,
    count_parameters,
    read_weights,
    write_weights,
)
from lfm4ads_tf.training.config import OptimizerConfig
from lfm4ads_tf.transfer.retrieval.retriever import Retriever
from tests.embeddings.fake_workers import FakeWorkers


class Model(tf_keras.Model):
    """Two layers of tables at different depths, dense layers in a list and a step count."""

    def __init__(self, seed: int = 0, shards: int = 1, width: int = 2) -> None:
        super().__init__(name="m")
        self.tables = ShardedEmbedding(
            [TableConfig("a/1", 30, 3), TableConfig("b", 5, 2, storage="bfloat16")],
            [EmbeddedFeature("a", "a/1"), EmbeddedFeature("b", "b")],
            shards=shards,
            seed=seed,
            name="first",
        )
        self.more = [
            ShardedEmbedding(
                [TableConfig("b", 4, 2)],
                [EmbeddedFeature("c", "b")],
                shards=shards,
                seed=seed + 1,
                name="second",
            )
        ]
        glorot = tf_keras.initializers.GlorotUniform
        self.dense = [
            tf_keras.layers.Dense(width, kernel_initializer=glorot(seed + k), name=f"d{k}")
            for k in (0, 1)
        ]
        self.seen = tf.Variable(0, dtype=tf.int64, trainable=False)
        self(tf.zeros([1, 3], tf.int64))

    @property
    def embeddings(self) -> list[ShardedEmbedding]:
        return [self.tables, *self.more]

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        self.seen.assign_add(1)
        values = [*self.tables(ids[:, :2]).values(), *self.more[0](ids[:, 2:]).values()]
        stream = tf.concat([tf.reshape(v, [tf.shape(ids)[0], v.shape[-1]]) for v in values], -1)
        for layer in self.dense:
            stream = layer(stream)
        return stream


def checkpoint_of(
    folder: Path,
    seed: int = 0,
    shards: int = 1,
    rule: Any = "adagrad",
    width: int = 2,
    keep: int = 1,
    writes: bool = True,
) -> tuple[Model, HybridOptimizer, TrainingCheckpoint]:
    model = Model(seed, shards, width)
    config = OptimizerConfig(table_learning_rate=0.1, dense_learning_rate=0.1, rule=rule)
    optimizers = ModelOptimizers(Objective.of(lambda batch: {}, config), model, model.embeddings)
    (optimizer,) = optimizers.optimizers.values()
    checkpoint = TrainingCheckpoint(folder, model, optimizers, keep=keep, writes=writes)
    return model, optimizer, checkpoint


def train(model: Model, optimizer: HybridOptimizer, steps: int = 2) -> None:
    for step in range(steps):
        ids = tf.constant(np.random.default_rng(step).integers(0, 4, (8, 3)))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(ids) - 1.0))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def state(model: Model, optimizer: HybridOptimizer | None = None) -> list[np.ndarray]:
    """All there is: dense and table weights, and with an optimizer all of its variables."""
    found = []
    tables = {id(part) for layer in model.embeddings for part in layer.all_parts()}
    found += [v.numpy() for v in model.variables if id(v) not in tables]
    for layer in model.embeddings:
        for config in layer.layout.tables.values():
            found.append(layer.read_table(config.name))
            rows = (0, config.stored_rows + 1)
            home = layer.layout.home(config.name).name
            for slot in [] if optimizer is None else optimizer.rule.slots:
                variable = optimizer.slot(layer, home, slot.name)  # type: ignore[union-attr]
                found.append(layer.read_rows(config.name, *rows, variable))
    if optimizer is not None:
        slots = {
            id(part)
            for slot in optimizer.table_slots.values()
            for part in getattr(slot, "variables", [slot])
        }
        found += [v.numpy() for v in optimizer.variables if id(v) not in slots]
    return found


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    assert len(one) == len(other)
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_nothing_to_restore(tmp_path: Path) -> None:
    *_, checkpoint = checkpoint_of(tmp_path)
    assert checkpoint.restore() == Position(0, 0, 0)
    assert checkpoint.history({"a"}) == []


@pytest.mark.parametrize("rule", ["adagrad", "rowwise_adagrad", "adam", "ftrl"])
def test_every_variable_comes_back_under_another_number_of_shards(
    tmp_path: Path, rule: str
) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path, 0, 1, rule)
    train(model, optimizer)
    optimizer.dense_learning_rate.assign(0.03)
    optimizer.table_learning_rate.assign(0.07)
    checkpoint.save(0, 5, 5)
    expected = state(model, optimizer)
    for shards in (3, 2):
        other, other_optimizer, checkpoint = checkpoint_of(tmp_path, 9, shards, rule)
        assert not same(state(other, other_optimizer), expected)
        assert checkpoint.restore() == Position(0, 5, 5)
        assert same(state(other, other_optimizer), expected)
        checkpoint.save(0, 5, 5)


def test_the_end_of_a_phase_and_its_last_step_are_two_saves(tmp_path: Path) -> None:
    model, _, checkpoint = checkpoint_of(tmp_path)
    checkpoint.save(0, 5, 5)
    model.dense[0].bias.assign([3.0, 4.0])
    checkpoint.save(0, 6, 6)
    history = [{"phase": "a", "value": 0.5, "step": 6}, {"phase": "b", "value": 0.6, "step": 9}]
    checkpoint.save(1, 0, 6, history)
    again, _, restored = checkpoint_of(tmp_path, seed=1)
    assert restored.restore() == Position(1, 0, 6)
    assert restored.history({"a"}) == history[:1]
    assert same(state(again), state(model))
    restored.save(2, 0, 6)  # a phase without steps
    assert checkpoint_of(tmp_path)[2].restore() == Position(2, 0, 6)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == [
        "checkpoint",
        "ckpt-4.data-00000-of-00001",
        "ckpt-4.index",
        "ckpt-4.tables",
    ]


def test_dense_files_hold_no_table(tmp_path: Path) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path)
    checkpoint.save(0, 1, 1)
    latest = tf.train.latest_checkpoint(str(tmp_path / "checkpoint"))
    shapes = [tuple(shape) for _, shape in tf.train.list_variables(latest)]
    tables = [tuple(part.shape) for layer in model.embeddings for part in layer.all_parts()]
    assert not set(shapes) & set(tables)


def test_whatever_a_kill_leaves_is_the_last_checkpoint_or_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies the run's folder before and after all that a save does to it, as a kill leaves it."""
    run = tmp_path / "run"
    model, optimizer, checkpoint = checkpoint_of(run)
    checkpoint.save(0, 1, 1)
    before = state(model, optimizer)
    train(model, optimizer)
    copies: list[Path] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            copies.append(shutil.copytree(run, tmp_path / "killed" / str(len(copies)) / "run"))
            done = function(*arguments, **options)
            copies.append(shutil.copytree(run, tmp_path / "killed" / str(len(copies)) / "run"))
            return done

        return call

    with monkeypatch.context() as patch:
        for where, name in ((os, "replace"), (tf.train.CheckpointManager, "save")):
            patch.setattr(where, name, watched(getattr(where, name)))
        for name in ("_record_state", "_sweep"):
            patch.setattr(
                tf.train.CheckpointManager, name, watched(getattr(tf.train.CheckpointManager, name))
            )
        patch.setattr(
            np.lib.format, "write_array_header_1_0", watched(np.lib.format.write_array_header_1_0)
        )
        patch.setattr(
            TrainingCheckpoint,
            "_remove_other_tables",
            watched(TrainingCheckpoint._remove_other_tables),
        )
        checkpoint.save(0, 3, 3)
    after = state(model, optimizer)
    steps = []
    for copy in copies:
        found, found_optimizer, killed = checkpoint_of(copy, seed=5)
        position = killed.restore()
        steps.append(position.step)
        expected = {1: before, 3: after}[position.step]
        assert same(state(found, found_optimizer), expected), copy
        killed.save(0, 4, 4)  # goes on, and cleans up
        assert len(list((copy / "checkpoint").glob("ckpt-*.tables"))) == 1
    assert steps == sorted(steps) and set(steps) == {1, 3} and len(steps) > 20
    shutil.rmtree(run)


@pytest.mark.parametrize("where", ["tables", "dense"])
def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path)
    checkpoint.save(0, 1, 1)
    expected = state(model, optimizer)
    train(model, optimizer)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "tables":
            patch.setattr(np.lib.format, "write_array_header_1_0", full)
        else:
            patch.setattr(tf.train.CheckpointManager, "save", full)
        with pytest.raises(UserError, match="cannot be written[\\s\\S]*No space left"):
            checkpoint.save(0, 2, 2)
    kept = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert [name for name in kept if "tables" in name] == ["ckpt-1.tables"]
    other, other_optimizer, restored = checkpoint_of(tmp_path, seed=3)
    assert restored.restore() == Position(0, 1, 1)
    assert same(state(other, other_optimizer), expected)


def kept_in(folder: Path) -> set[str]:
    """What the folder of checkpoints holds, beside the list of them."""
    return {p.name.partition(".")[0] for p in (folder / "checkpoint").iterdir()} - {"checkpoint"}


def test_as_many_checkpoints_are_kept_as_asked(tmp_path: Path) -> None:
    states: list[list[np.ndarray]] = []
    model, optimizer, checkpoint = checkpoint_of(tmp_path, keep=3)
    for number in range(1, 6):
        train(model, optimizer, 1)
        states.append(state(model, optimizer))
        checkpoint.save(0, number, 10 * number)
    assert kept_in(tmp_path) == {"ckpt-3", "ckpt-4", "ckpt-5"}
    other, other_optimizer, again = checkpoint_of(tmp_path, seed=3, keep=3)
    with pytest.raises(UserError) as error:
        again.restore(2)
    assert "holds no checkpoint 2" in str(error.value)
    assert "kept: 3 (step 30), 4 (step 40), 5 (step 50)" in str(error.value)
    assert again.restore() == Position(0, 5, 50)
    assert again.restore(4) == Position(0, 4, 40)
    assert same(state(other, other_optimizer), states[3])
    assert kept_in(tmp_path) == {"ckpt-3", "ckpt-4"}
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    other, other_optimizer, again = checkpoint_of(moved, seed=4, keep=2)
    assert again.restore() == Position(0, 4, 40)
    assert same(state(other, other_optimizer), states[3])
    again.save(0, 6, 60)
    again.save(0, 7, 70)
    assert kept_in(moved) == {"ckpt-5", "ckpt-6"}
    _, _, single = checkpoint_of(moved)  # and fewer from now on
    single.restore(6)
    single.save(1, 0, 80)
    assert kept_in(moved) == {"ckpt-7"}
    moved.rename(tmp_path)


def test_no_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint 1[\\s\\S]*kept: none"):
        checkpoint_of(tmp_path)[2].restore(1)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("where", ["tables", "state", "dense"])
def test_a_disk_that_fills_up_leaves_the_earlier_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, keep: int
) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path, keep=keep)
    states: list[list[np.ndarray]] = []
    for number in (1, 2):
        train(model, optimizer, 1)
        states.append(state(model, optimizer))
        checkpoint.save(0, number, number)
    train(model, optimizer)
    left = kept_in(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(self: Any, prefix: str, *_: object, **__: object) -> None:
        Path(f"{prefix}.data-00000-of-00001").write_bytes(b"half")
        Path(f"{prefix}_temp").mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}; No space left on device")

    with monkeypatch.context() as patch:
        if where == "tables":
            patch.setattr(np.lib.format, "write_array_header_1_0", full)
        elif where == "state":  # TensorFlow's files are whole, but the list of them is not written
            patch.setattr(tf.train.CheckpointManager, "_record_state", full)
        else:
            patch.setattr(tf.train.Checkpoint, "_write", half)
        with pytest.raises(UserError, match="cannot be written[\\s\\S]*No space left"):
            checkpoint.save(0, 3, 3)
    assert kept_in(tmp_path) == left
    for number in sorted(int(name.removeprefix("ckpt-")) for name in left)[::-1]:
        other, other_optimizer, restored = checkpoint_of(tmp_path, seed=3, keep=keep)
        assert restored.restore(number) == Position(0, number, number)
        assert same(state(other, other_optimizer), states[number - 1])


def test_a_launcher_goes_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path, keep=3)
    for number in (1, 2, 3):
        train(model, optimizer, 1)
        checkpoint.save(0, number, number)
    monkeypatch.setenv("LFM4ADS_LAUNCH", "one")
    assert checkpoint_of(tmp_path, keep=3)[2].restore(2).step == 2
    model, optimizer, checkpoint = checkpoint_of(tmp_path, keep=3)
    assert checkpoint.restore(2).step == 2
    checkpoint.save(0, 3, 3)
    # restarted after a loss, with the same words: on from the latest, not back again
    assert checkpoint_of(tmp_path, keep=3)[2].restore(2).step == 3
    monkeypatch.setenv("LFM4ADS_LAUNCH", "two")
    assert checkpoint_of(tmp_path, keep=3)[2].restore(2).step == 2
    monkeypatch.delenv("LFM4ADS_LAUNCH")
    assert checkpoint_of(tmp_path, keep=3)[2].restore(1).step == 1


def test_of_processes_that_go_back_together_one_removes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LFM4ADS_LAUNCH", "one")
    model, optimizer, checkpoint = checkpoint_of(tmp_path, keep=3)
    for number in (1, 2, 3):
        train(model, optimizer, 1)
        checkpoint.save(0, number, number)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert checkpoint_of(tmp_path, keep=3, writes=False)[2].restore(2).step == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert checkpoint_of(tmp_path, keep=3)[2].restore(2).step == 2
    assert kept_in(tmp_path) == {"ckpt-1", "ckpt-2"}
    assert checkpoint_of(tmp_path, keep=3, writes=False)[2].restore(2).step == 2


def test_a_damaged_latest_checkpoint_tells_of_earlier_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    *_, checkpoint = checkpoint_of(tmp_path, keep=2)
    checkpoint.save(0, 1, 1)
    checkpoint.save(0, 2, 2)
    os.truncate(tmp_path / "checkpoint/ckpt-2.tables/tables/0000_a_1.weights.npy", 200)
    with pytest.raises(UserError, match="0000_a_1.weights.npy' is missing or damaged"):
        checkpoint_of(tmp_path)[2].restore()
    assert "are kept: 1; --resume-from" in caplog.text
    assert checkpoint_of(tmp_path)[2].restore(1) == Position(0, 1, 1)
    assert kept_in(tmp_path) == {"ckpt-1"}


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_checkpoints_of_workers_and_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 7)
    with working(FakeWorkers()):
        model, optimizer, checkpoint = checkpoint_of(tmp_path, shards=shards, keep=2)
        train(model, optimizer)
        checkpoint.save(0, 1, 1)
    assert len(list((tmp_path / "checkpoint").glob("ckpt-1.tables/tables/0000_a_1.*-of-*"))) == 10
    expected = state(model, optimizer)
    other, other_optimizer, again = checkpoint_of(tmp_path, 9, 3, keep=2)
    assert again.restore() == Position(0, 1, 1)
    assert same(state(other, other_optimizer), expected)
    again.save(0, 2, 2)
    with working(FakeWorkers()):
        model, optimizer, checkpoint = checkpoint_of(tmp_path, 7, shards)
        assert checkpoint.restore() == Position(0, 2, 2)
        write_weights(model, tmp_path / "weights")
    assert same(state(model, optimizer), expected)
    assert count_parameters(tmp_path / "weights")[0] == 31 * 3 + 6 * 2 + 5 * 2
    other = Model(3)
    read_weights(other, tmp_path / "weights")
    assert same(state(other), state(model))


def test_another_rule_does_not_resume(tmp_path: Path) -> None:
    checkpoint_of(tmp_path)[2].save(0, 1, 1)
    with pytest.raises(UserError, match="are not those of the optimizer"):
        checkpoint_of(tmp_path, rule="ftrl")[2].restore()


def test_a_checkpoint_of_other_sizes_does_not_resume(tmp_path: Path) -> None:
    checkpoint_of(tmp_path)[2].save(0, 1, 1)
    with pytest.raises(UserError, match="is of another model"):
        checkpoint_of(tmp_path, width=3)[2].restore()


def test_a_damaged_checkpoint_names_its_file(tmp_path: Path) -> None:
    checkpoint_of(tmp_path)[2].save(0, 1, 1)
    path = tmp_path / "checkpoint" / "ckpt-1.tables" / "tables" / "0000_a_1.weights.npy"
    os.truncate(path, 200)
    with pytest.raises(UserError, match="0000_a_1.weights.npy' is missing or damaged"):
        checkpoint_of(tmp_path)[2].restore()


def test_best_weights(tmp_path: Path) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path)
    expected = []
    for k in range(4):
        train(model, optimizer, 1)
        expected.append(state(model))
        checkpoint.save_best(f"epoch_{k}")
    assert len(list((tmp_path / "best").iterdir())) == 2
    checkpoint.restore_best("epoch_2")
    assert same(state(model), expected[2]) and not same(state(model), expected[3])


def test_the_best_weights_of_every_kept_checkpoint_stay(tmp_path: Path) -> None:
    model, optimizer, checkpoint = checkpoint_of(tmp_path, keep=3)
    expected = []
    for k in range(5):  # each phase is the best so far
        train(model, optimizer, 1)
        expected.append(state(model))
        checkpoint.save_best(f"epoch_{k}")
        checkpoint.save(k, 0, k)
    model, _, again = checkpoint_of(tmp_path, keep=3)
    assert again.restore(3) == Position(2, 0, 2)
    again.restore_best("epoch_2")
    assert same(state(model), expected[2])
    again.save_best("epoch_3")
    again.restore_best("epoch_2")
    assert same(state(model), expected[2])


def test_weights_and_their_number(tmp_path: Path) -> None:
    write_weights(Model(2, shards=2), tmp_path / "w")
    write_weights(Model(), tmp_path / "w")  # replaces
    model = Model(3, shards=3)
    read_weights(model, tmp_path / "w")
    assert same(state(model), state(Model()))
    dense = (7 + 1) * 2 + (2 + 1) * 2 + 1
    assert count_parameters(tmp_path / "w") == (31 * 3 + 6 * 2 + 5 * 2, dense)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    def plain(layers: int) -> tf_keras.Model:
        model = tf_keras.Sequential([tf_keras.layers.Dense(2) for _ in range(layers)])
        model(tf.zeros([1, 3]))
        return model

    one = plain(1)
    write_weights(one, tmp_path / "w")
    with pytest.raises(UserError, match="of another model"):
        read_weights(plain(2), tmp_path / "w")
    with pytest.raises(UserError, match="no embedding tables"):
        read_weights(Model(), tmp_path / "w")
    wider = tf_keras.Sequential([tf_keras.layers.Dense(5)])
    wider(tf.zeros([1, 3]))
    with pytest.raises(UserError, match="of other sizes"):
        read_weights(wider, tmp_path / "w")
    same_kind = plain(1)
    read_weights(same_kind, tmp_path / "w")
    np.testing.assert_array_equal(same_kind.layers[0].kernel, one.layers[0].kernel)


def test_a_models_every_variable_is_stored(ads: Any, tmp_path: Path) -> None:
    """The retriever keeps its tables and a library's task at other places than the rest."""

    def retriever(seed: int) -> Retriever:
        layout = ads.cache.layout
        model = Retriever(layout, [6], 4, EmbeddingsConfig(), item_counts=np.ones(9), seed=seed)
        model(example_batch(layout))
        return model

    one, other = retriever(0), retriever(1)
    write_weights(one, tmp_path / "w")
    read_weights(other, tmp_path / "w")
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.name)
    tables, dense = count_parameters(tmp_path / "w")
    assert tables + dense == sum(int(np.prod(v.shape)) for v in one.variables)
