"""Exported graphs are traced once and hold no node twice that a server would prepare twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.export import verify_child
from lfm4ads_tf.export.prediction_serving import PredictionServing
from lfm4ads_tf.export.serving_model import _row_counts
from lfm4ads_tf.graph_checks import graph_assert


def test_equal_signatures_give_the_same_tensors(exports: Path) -> None:
    folder = exports / "ranker_tab 1" / "1"
    graph = verify_child.read_graph(folder)
    ends = {n: s.outputs["outputs"].name for n, s in graph.signature_def.items() if "regress" in n}
    assert ends["regress"] == ends["regress_click"] != ends["regress_like"]
    wanted = {
        end.name.partition(":")[0]
        for s in graph.signature_def.values()
        for end in s.outputs.values()
    }
    calls = {n.name for n in graph.graph_def.node if n.op == "StatefulPartitionedCall"}
    read = {source.strip("^").partition(":")[0] for n in graph.graph_def.node for source in n.input}
    # what no signature gives is the saving and restoring of variables, and their initial values
    savers = {
        graph.saver_def.save_tensor_name.partition(":")[0],
        graph.saver_def.restore_op_name,
    }
    assert calls <= wanted | read | savers
    requests, expected, allowed = verify_child.read_golden(folder)
    loaded = verify_child.LoadedModel(folder)
    for name in ("regress", "regress_click"):  # each is there in Python too
        found = loaded(name, requests[name])
        assert verify_child.compare_outputs(name, found, expected[name], allowed[name]).share <= 1


def test_a_model_is_traced_once_for_all_signatures_that_score_rows(
    world: Any,
    models: Any,
    tmp_path: Path,
    unproven: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced: list[str] = []
    run = PredictionServing.run

    def counted(self: Any, raw: Any) -> Any:
        traced.append("run")
        return run(self, raw)

    monkeypatch.setattr(PredictionServing, "run", counted)
    world.export("ranker_tab 1", models["ranker_tab 1"], tmp_path)
    assert traced == ["run"]


KINDS = st.sampled_from([tf.string, tf.int64, tf.float32])


@given(st.lists(st.tuples(KINDS, st.lists(st.integers(0, 3), min_size=1, max_size=3)), min_size=1))
def test_row_counts_are_the_first_dimensions(of: list[tuple[tf.DType, list[int]]]) -> None:
    tensors = [tf.cast(tf.zeros(s), d) if d != tf.string else tf.fill(s, "") for d, s in of]
    assert _row_counts(tensors).numpy().tolist() == [shape[0] for _, shape in of]


def test_a_check_is_one_op_that_stops_with_its_message() -> None:
    @tf.function(autograph=False)
    def checked(values: tf.Tensor) -> tf.Tensor:
        graph_assert(tf.reduce_all(values > 0), ["positive numbers, not", values], summarize=2)
        return values

    one = tf.constant([1, 2], tf.int64)
    ops = [op.type for op in checked.get_concrete_function(one).graph.get_operations()]
    assert ops.count("Assert") == 1 and not {"If", "StatelessIf"} & set(ops)
    np.testing.assert_array_equal(checked(one), one)
    for check in (checked, checked.python_function):
        with pytest.raises(tf.errors.InvalidArgumentError, match="positive numbers, not"):
            check(-one)
