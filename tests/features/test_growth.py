"""Growing a vocabulary in portions against fitting it on the whole stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.growth import grow_encoding, load_waiting, save_waiting
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.features.vocabulary import Vocabulary

values = st.lists(st.sampled_from(["a", "b", "c", "d", "e", ""]), max_size=12)


def spec_of(least: int) -> object:
    return parse_spec(
        {
            "name": "s",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "u", "item": "i", "time": "t"},
            "tasks": {"click": "click"},
            "split": {"by": "t", "train_until": 1, "valid_until": 2},
            "period": {"by": "t"},
            "features": {
                "v": {"owner": "context", "kind": "vocabulary", "min_count": least},
                "u": {"owner": "user", "kind": "hashed", "buckets": 3},
                "i": {"owner": "item", "kind": "hashed", "buckets": 3},
            },
        }
    )


@settings(max_examples=60, deadline=None)
@given(portions=st.lists(values, min_size=1, max_size=4), least=st.integers(1, 3))
def test_portions_give_the_vocabulary_of_the_whole_stream(
    portions: list[list[str]], least: int
) -> None:
    spec = spec_of(least)
    fitted = FittedEncoding({"v": Vocabulary([], np.zeros(0, np.int64))})
    waiting: dict[str, dict[str, int]] = {}
    base = 0
    for portion in portions:
        before = fitted.vocabularies["v"]
        columns = {"v": pa.array(portion, pa.string())}
        fitted, waiting = grow_encoding(
            spec,  # type: ignore[arg-type]
            fitted,
            columns,
            len(portion),
            base=base,
            waiting=waiting,
        )
        base += len(portion)
        assert fitted.vocabularies["v"].values[: len(before.values)] == before.values
    whole = pa.array([v for portion in portions for v in portion], pa.string())
    expected = Vocabulary.fit(whole, np.arange(base), least)
    assert fitted.vocabularies["v"] == expected
    counts = {v: whole.to_pylist().count(v) for v in set(whole.to_pylist()) - {""}}
    assert waiting["v"] == {v: n for v, n in counts.items() if v not in expected.values}


def test_what_waits_is_kept(tmp_path: Path) -> None:
    assert load_waiting(tmp_path) == {}
    waiting = {"v": {"a": 2, "ä": 1}, "w": {"b": 1}}
    save_waiting(tmp_path, waiting)
    assert load_waiting(tmp_path) == waiting
    save_waiting(tmp_path, {"v": {}})
    assert load_waiting(tmp_path) == {}
