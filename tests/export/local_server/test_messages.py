"""Messages written straight to the wire, against the message classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import classification_pb2, regression_pb2

from lfm4ads_tf.export.local_server.messages import classification_result, regression_result

FLOATS = st.floats(width=32, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(max_size=200), min_size=1, max_size=4),
    st.lists(FLOATS, min_size=0, max_size=24),
    st.booleans(),
    st.booleans(),
)
def test_classification(names: list[str], values: list[float], named: bool, vary: bool) -> None:
    rows = len(values) // len(names)
    scores = np.array(values[: rows * len(names)], np.float32).reshape(rows, len(names))
    labels = None
    if named:
        labels = np.empty(scores.shape, object)
        for row in range(rows):
            suffix = str(row) if vary else ""
            labels[row] = [f"{name}{suffix}".encode() for name in names]
    data = classification_result(labels, scores)
    result = classification_pb2.ClassificationResult.FromString(data)
    assert len(result.classifications) == rows
    for row, entry in enumerate(result.classifications):
        assert [c.score for c in entry.classes] == scores[row].tolist()
        expected = [""] * len(names) if labels is None else [t.decode() for t in labels[row]]
        assert [c.label for c in entry.classes] == expected
    if labels is not None:
        alone = classification_pb2.ClassificationResult.FromString(
            classification_result(labels, None)
        )
        assert [[c.label for c in r.classes] for r in alone.classifications] == [
            [t.decode() for t in row] for row in labels
        ]


@given(st.lists(FLOATS, max_size=20))
def test_regression(values: list[float]) -> None:
    result = regression_pb2.RegressionResult.FromString(
        regression_result(np.array(values, np.float32))
    )
    assert [r.value for r in result.regressions] == values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0])
def test_special_values(value: float) -> None:
    data = regression_result(np.array([value], np.float32))
    (found,) = regression_pb2.RegressionResult.FromString(data).regressions
    assert np.float32(found.value).tobytes() == np.float32(value).tobytes()
