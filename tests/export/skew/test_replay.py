"""The replay on every kind of feature, against a served model that is wrong where it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.skew.comparison import SkewComparison
from lfm4ads_tf.export.skew.logged_rows import LoggedRows, read_logged_rows
from lfm4ads_tf.export.skew.offline_rows import OfflineRows
from lfm4ads_tf.export.skew.replay import SkewReplay
from lfm4ads_tf.export.skew.replay_target import Outputs
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.request_name import request_name

ROWS = 40
Change = Callable[[Outputs], None]


class FakeModel:
    """Encodes requests by an encoder, and lets a test change the answers."""

    def __init__(self, encoder: Encoder, change: Change | None = None) -> None:
        self.where = "fake"
        self._encoder = encoder
        self._change = change or (lambda outputs: None)
        self._parser = {
            **encoder.example_spec(),
            "UR": tf.io.FixedLenFeature([2], tf.float32, [0.0, 0.0]),
        }

    def run(self, signature: str, examples: Sequence[bytes]) -> Outputs:
        """See `ServedModel.run`."""
        raw = tf.io.parse_example(tf.constant(list(examples)), self._parser)
        encoded = self._encoder({c: raw[c] for c in self._encoder.raw_types})
        outputs: Outputs = {}
        if signature == "serving_default":
            outputs = {t: np.full(len(examples), 0.5) for t in self._encoder.layout.tasks}
        else:
            layout = self._encoder.layout
            for column, field in enumerate(layout.single):
                outputs[request_name(field.name)] = encoded["ids"][:, column].numpy()
            start = 0
            for dense in layout.dense:
                values = encoded["dense"][:, start : start + dense.width].numpy()
                outputs[request_name(dense.name)] = values[:, 0] if dense.width == 1 else values
                start += dense.width
            for name, (ids, weights) in encoded["bags"].items():
                outputs[request_name(name)] = ids.to_tensor(-1).numpy()
                if weights is not None:
                    outputs[f"{request_name(name)}_weights"] = weights.to_tensor(0.0).numpy()
            outputs["UR"] = raw["UR"].numpy()
            outputs["scenario_index"] = encoded["scenario"].numpy()
            outputs["branch_index"] = encoded["branch"].numpy()
        self._change(outputs)
        return outputs

    def close(self) -> None:
        """See `ServedModel.close`."""


@pytest.fixture(scope="module")
def encoder(ads: Any) -> Encoder:
    return Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))


@pytest.fixture(scope="module")
def replayed(
    ads: Any, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[dict[str, SkewComparison], SkewReplay]]:
    """`replayed(change, **logged columns)`: comparisons by name, in order, and the replay."""
    rng = np.random.default_rng(0)
    rows = {
        "user_id": [f"u{k}" for k in rng.integers(0, 14, ROWS)],
        "item_id": [f"i{k}" for k in rng.integers(0, 10, ROWS)],
        "tab": [f"t{k}" for k in rng.integers(0, 2, ROWS)],
        "hour": rng.integers(0, 24, ROWS).astype(float).tolist(),
    }
    folder = tmp_path_factory.mktemp("log")

    def run(change: Change | None = None, *, tasks: list[str] | None = None, **more: Any) -> Any:
        path = folder / "log.parquet"
        pq.write_table(pa.table({**rows, **more}), path)
        logged: LoggedRows = read_logged_rows(ads.spec, ads.folder, path, {"UR": 2})
        columns = logged.offline(ads.spec, ads.folder, encoder)
        vectors = np.ones((ROWS, 3), np.float32)
        scores = np.full((ROWS, len(encoder.layout.tasks)), 0.5, np.float32)
        fitted = FittedEncoding.load(ads.folder / "encoding")
        encoded = encode_columns(encoder, columns)
        side = OfflineRows(
            encoder, fitted, columns, encoded, {"UR": vectors}, list(ads.spec.features), scores
        )
        contract = {
            "tasks": tasks or list(encoder.layout.tasks),
            "columns": {c: t.kind for c, t in encoder.raw_types.items()},
            "representations": {"UR": 2},
            "tables": "float32",
            "tolerance": 0.0,
            "rounding": {t: {"of": "logit", "bound": 4e-6} for t in encoder.layout.tasks},
        }
        replay = SkewReplay(ads.spec, side, logged, contract)
        replay.run(FakeModel(encoder, change), quiet=True)
        return {c.name: c for c in replay.features("another encoding")}, replay

    return run


def _differing(found: dict[str, SkewComparison]) -> list[str]:
    return [name for name, c in found.items() if c.differing]


def test_every_kind_of_feature_is_compared_and_equal(replayed: Any, ads: Any) -> None:
    found, replay = replayed()
    assert list(found) == [*ads.spec.features, "UR", "the scenario", "the branch"]
    assert _differing(found) == []
    assert all(c.rows == ROWS for c in found.values())
    assert [c.differing for c in replay.scores()] == [0, 0]
    assert replay.raw_columns() == []


@pytest.mark.parametrize(
    ("name", "output", "row", "amount"),
    [
        ("user_id", "user_id", 3, 1),
        ("age", "age", 5, 1e-3),
        ("level", "level", 0, 1),
        ("interests", "interests_weights", None, 0.5),
        ("interests", "interests", None, 1),
        ("vector", "vector", 7, 0.1),
        ("user_click", "user_click", 39, -0.5),
        ("segment_brand", "segment_brand", 2, 1),
        ("UR", "UR", 4, 1.0),
        ("the scenario", "scenario_index", 6, 1),
        ("the branch", "branch_index", 9, 1),
    ],
)
def test_a_change_of_one_output_is_found_in_its_feature_alone(
    replayed: Any, name: str, output: str, row: int | None, amount: float
) -> None:
    changed: list[int] = []

    def change(outputs: Outputs) -> None:
        if output not in outputs:
            return
        values = outputs[output].astype(np.float64 if isinstance(amount, float) else np.int64)
        at = row
        if at is None:  # the first row with a value in its list
            at = int(np.argmax((outputs["interests"] >= 0).any(axis=1)))
        values[(at, *[0] * (values.ndim - 1))] += amount
        outputs[output] = values
        changed.append(at)

    found, _ = replayed(change)
    assert _differing(found) == [name]
    assert found[name].row == changed[0] and found[name].differing == 1
    assert found[name].reason == "another encoding"
    assert found[name].offline != found[name].served


def test_a_longer_or_shorter_padding_is_no_difference(replayed: Any) -> None:
    def change(outputs: Outputs) -> None:
        if "tags" in outputs:
            outputs["tags"] = np.pad(outputs["tags"], ((0, 0), (0, 3)), constant_values=-1)

    assert _differing(replayed(change)[0]) == []


def test_a_lost_value_of_a_list_is_a_difference(replayed: Any) -> None:
    def change(outputs: Outputs) -> None:
        if "tags" in outputs:
            outputs["tags"] = outputs["tags"][:, 1:]

    found, _ = replayed(change)
    assert _differing(found) == ["tags"]


def test_a_column_of_a_side_table_that_was_sent_differently_is_explained(
    replayed: Any, ads: Any
) -> None:
    table = pq.read_table(ads.folder / "tables" / "users.parquet")
    known = dict(zip(table["user_id"].to_pylist(), table["segment"].to_pylist(), strict=True))
    logged = [f"x{k}" for k in range(ROWS)]
    found, replay = replayed(segment=logged)
    # the crossed feature reads the same column
    assert _differing(found)[0] == "segment"
    assert set(_differing(found)) <= {"segment", "segment_brand"}
    first = found["segment"]
    assert first.row is not None
    assert f"the log holds 'segment' = 'x{first.row}'" in first.reason
    assert "the training run's table has" in first.reason
    found, _ = replayed(segment=[known.get(u) for u in _users(replay)])
    assert _differing(found) == []


def _users(replay: Any) -> list[str]:
    users: list[str] = replay._logged.plain["user_id"].to_pylist()
    return users


def test_a_logged_statistic_and_vector_are_explained(replayed: Any) -> None:
    found, replay = replayed(
        **{"item_love.rate": [9.0] * ROWS, "UR": [[1.0, 1.0]] * (ROWS - 1) + [[1.0, 2.0]]}
    )
    assert _differing(found) == ["item_love", "UR"]
    assert "the log holds 'item_love.rate' = 9" in found["item_love"].reason
    assert found["UR"].row == ROWS - 1 and "another vector" in found["UR"].reason
    assert [(c.name, c.differing) for c in replay.raw_columns()] == [("item_love.rate", ROWS)]


def test_scores_beyond_the_tolerance_are_told(replayed: Any) -> None:
    def change(outputs: Outputs) -> None:
        if "love" in outputs:
            outputs["love"][9] += 1e-5
            outputs["click"] += 1e-8

    _, replay = replayed(change)
    click, love = replay.scores()
    assert (click.differing, love.differing, love.row) == (0, 1, 9)
    assert love.largest == pytest.approx(1e-5, rel=0.01)


def test_an_answer_without_an_output_or_with_other_rows_is_refused(replayed: Any) -> None:
    with pytest.raises(UserError, match="lacks the output 'brand'"):
        replayed(lambda outputs: outputs.pop("brand", None))

    def fewer(outputs: Outputs) -> None:
        if "brand" in outputs:
            outputs["brand"] = outputs["brand"][:-1]

    with pytest.raises(UserError, match="another number of rows"):
        replayed(fewer)


def test_tasks_that_an_export_does_not_answer_are_not_compared(replayed: Any, ads: Any) -> None:
    every = list(ads.spec.tasks)
    for served in ([every[-1]], every):
        _, replay = replayed(tasks=served)
        assert [score.name for score in replay.scores()] == served


def test_nan_in_an_answer_is_a_difference(replayed: Any) -> None:
    def change(outputs: Outputs) -> None:
        if "hour" in outputs:
            outputs["hour"] = np.where(np.arange(ROWS) == 8, np.nan, outputs["hour"])

    found, _ = replayed(change)
    assert _differing(found) == ["hour"] and found["hour"].row == 8
