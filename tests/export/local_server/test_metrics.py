"""The metrics' page is Prometheus' text format, with names and numbers as TensorFlow Serving's."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lfm4ads_tf.export.local_server.metrics import Metrics


def _filled(model: str) -> Metrics:
    metrics = Metrics()
    for seconds in (5e-6, 18e-6, 1e6):
        timer = metrics.request("Predict", "REST")
        timer.model, timer.runtime_s = model, seconds / 2
        metrics.record(timer, "OK", seconds)
    return metrics


@pytest.mark.parametrize("model", ["m", 'quotes " back\\slash and\na line'])
def test_the_page_parses_to_what_was_recorded(model: str) -> None:
    families = {f.name: f for f in text_string_to_metric_families(_filled(model).page())}
    assert {name: f.type for name, f in families.items()} == {
        ":tensorflow:serving:request_count": "counter",
        ":tensorflow:serving:request_latency": "histogram",
        ":tensorflow:serving:runtime_latency": "histogram",
    }
    labels = {"model_name": model, "API": "Predict", "entrypoint": "REST", "status": "OK"}
    samples = families[":tensorflow:serving:request_latency"].samples
    assert all({k: v for k, v in s.labels.items() if k != "le"} == labels for s in samples)
    buckets = {s.labels["le"]: s.value for s in samples if "le" in s.labels}
    # A limit belongs to its bucket; the last request is longer than the longest limit below +Inf.
    assert [buckets[le] for le in ("10", "18", "32.4", "+Inf")] == [1, 2, 2, 3]
    others = {s.name.rpartition("_")[2]: s.value for s in samples if "le" not in s.labels}
    assert others == {"sum": pytest.approx(1e12 + 23, abs=1e-3), "count": 3}


def test_no_line_has_a_name_that_tensorflow_serving_does_not_show() -> None:
    lines = _filled("m").page().splitlines()
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 3' in lines
    assert not [line for line in lines if "_total" in line or "_created" in line]


def test_servers_do_not_share_their_counts() -> None:
    _filled("m")
    lines = Metrics().page().splitlines()
    assert len(lines) == 3 and all(line.startswith("# TYPE ") for line in lines)
