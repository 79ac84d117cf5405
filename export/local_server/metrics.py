"""Counts and times of requests, as a Prometheus page with the names of TensorFlow Serving."""

from __future__ import annotations

import time
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Histogram

from lfm4ads_tf.export.local_server.status_error import StatusError

METRICS_PATH = "/monitoring/prometheus/metrics"
"""Where the real server shows its metrics by default."""

_LIMITS = [10 * 1.8**power for power in range(33)]  # microseconds, to about 20 minutes
_COUNT = ":tensorflow:serving:request_count"
_REQUEST = ":tensorflow:serving:request_latency"
_RUNTIME = ":tensorflow:serving:runtime_latency"


class Metrics:
    """Counts requests and keeps histograms of their times; may be used by many threads.

    `request_latency` is a request's whole time from its bytes to the bytes of its answer,
    `runtime_latency` the share of it that was spent in the model's session; both in microseconds.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counts = Counter(_COUNT, "", ["model_name", "status"], registry=self._registry)
        labels = ["model_name", "API"]
        self._requests = Histogram(
            _REQUEST,
            "",
            [*labels, "entrypoint", "status"],
            registry=self._registry,
            buckets=_LIMITS,
        )
        self._runtimes = Histogram(
            _RUNTIME, "", [*labels, "runtime"], registry=self._registry, buckets=_LIMITS
        )

    def request(self, api: str, entrypoint: str) -> RequestTimer:
        """Measures one request from here to the end of the `with` block.

        Args:
            api: `Predict`, `Classify`, `Regress` or `MultiInference`.
            entrypoint: `GRPC` or `REST`.
        """
        return RequestTimer(self, api, entrypoint)

    def record(self, timer: RequestTimer, status: str, seconds: float) -> None:
        """Adds one finished request."""
        self._counts.labels(timer.model, status).inc()
        request = (timer.model, timer.api, timer.entrypoint, status)
        self._requests.labels(*request).observe(seconds * 1e6)
        if timer.runtime_s > 0:
            runtimes = self._runtimes.labels(timer.model, timer.api, "TF1")
            runtimes.observe(timer.runtime_s * 1e6)

    def page(self) -> str:
        """The metrics in Prometheus' text format."""
        # prometheus_client's own page names the counter `_total`, adds `_created` series, sorts
        # labels and writes counts as floats: not what TensorFlow Serving shows.
        lines = []
        for family in self._registry.collect():
            lines.append(f"# TYPE {family.name} {family.type}")
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                labels = ",".join(f'{k}="{_text(k, v)}"' for k, v in sample.labels.items())
                name = sample.name.removesuffix("_total")
                digits = ".3f" if name.endswith("_sum") else ".0f"
                lines.append(f"{name}{{{labels}}} {sample.value:{digits}}")
        return "\n".join(lines) + "\n"


class RequestTimer:
    """One request under way: set `model` when it is known, add the session's time to `runtime_s`.

    Args:
        metrics: Where the request is counted when it ends.
        api: See `Metrics.request`.
        entrypoint: See `Metrics.request`.
    """

    __slots__ = ("_metrics", "_start", "api", "entrypoint", "model", "runtime_s")

    def __init__(self, metrics: Metrics, api: str, entrypoint: str) -> None:
        self._metrics = metrics
        self.api = api
        self.entrypoint = entrypoint
        self.model = ""
        self.runtime_s = 0.0
        self._start = time.perf_counter()

    def __enter__(self) -> RequestTimer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = "OK" if error is None else StatusError.of(error).code.name
        self._metrics.record(self, status, time.perf_counter() - self._start)


def _text(label: str, value: str) -> str:
    """A label's value; limits as C++ writes them, without a point where they are whole."""
    if label == "le" and value != "+Inf":
        return f"{float(value):g}"
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
