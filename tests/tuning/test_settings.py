from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.config import DownstreamConfig, RunConfig
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import parse
from lfm4ads_tf.tuning.settings import PATHS, Settings, has_dropout

LAYERS: list[dict[str, Any]] = [
    {"type": "cross", "depth": 2},
    {"type": "dnn", "units": [8, 4]},
    {"type": "dnn", "units": [6], "dropout": 0.1},
]
UPSTREAM: UpstreamConfig = parse(
    RunConfig, {"upstream": {"network": {"block": {"layers": LAYERS}}}}, source="test"
).upstream
settings = st.builds(
    Settings,
    batch_size=st.integers(1, 9000),
    table_learning_rate=st.floats(1e-3, 1.0),
    dense_learning_rate=st.floats(1e-5, 1e-1),
    weight_decay=st.floats(0.0, 1.0),
    table_l2=st.floats(0.0, 1.0),
    dropout=st.floats(0.0, 0.9),
    passes=st.integers(1, 9),
    replay=st.integers(0, 9),
    final_passes=st.integers(0, 9),
    final_decay=st.floats(0.1, 1.0),
)


@given(settings, st.sampled_from([UPSTREAM, DownstreamConfig()]))
def test_what_is_applied_is_read_back(wanted: Settings, part: Any) -> None:
    assert Settings.of(wanted.apply(part)) == wanted


@given(settings, st.sets(st.sampled_from(sorted(PATHS))))
def test_kept_settings_stay(wanted: Settings, keep: set[str]) -> None:
    found = vars(Settings.of(wanted.apply(UPSTREAM, keep)))
    before = vars(Settings.of(UPSTREAM))
    for name in PATHS:
        assert found[name] == (before if name in keep else vars(wanted))[name]


def test_the_dropout_goes_to_the_hidden_layers_alone() -> None:
    part = Settings(batch_size=8, table_learning_rate=0.1, dense_learning_rate=0.1, dropout=0.4)
    cross, one, other = part.apply(UPSTREAM).network.block.layers
    assert (one.dropout, other.dropout) == (0.4, 0.4)  # type: ignore[union-attr]
    assert cross == UPSTREAM.network.block.layers[0]


def test_other_settings_leave_differing_dropouts_alone() -> None:
    moved = Settings.of(UPSTREAM)
    found = Settings(**{**vars(moved), "batch_size": 77}).apply(UPSTREAM)
    assert found.network == UPSTREAM.network and found.training.batch_size == 77
    assert Settings.of(UPSTREAM).apply(UPSTREAM) == UPSTREAM


@pytest.mark.parametrize("layers", [LAYERS, LAYERS[:1]])
def test_whether_there_is_a_dropout(layers: list[dict[str, Any]]) -> None:
    raw = {"upstream": {"network": {"block": {"layers": layers}}}}
    network = parse(RunConfig, raw, source="test").upstream.network
    assert has_dropout(network) == (len(layers) > 1)
