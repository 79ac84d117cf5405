"""Counts and times of requests, as a Prometheus page with the names of TensorFlow Serving."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from types import TracebackType

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
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._times: dict[str, dict[tuple[tuple[str, str], ...], _Histogram]] = {
            _REQUEST: {},
            _RUNTIME: {},
        }

    def request(self, api: str, entrypoint: str) -> RequestTimer:
        """Measures one request from here to the end of the `with` block.

        Args:
            api: `Predict`, `Classify`, `Regress` or `MultiInference`.
            entrypoint: `GRPC` or `REST`.
        """
        return RequestTimer(self, api, entrypoint)

    def record(self, timer: RequestTimer, status: str, seconds: float) -> None:
        """Adds one finished request."""
        model, api = ("model_name", timer.model), ("API", timer.api)
        request = (model, api, ("entrypoint", timer.entrypoint), ("status", status))
        with self._lock:
            key = (timer.model, status)
            self._counts[key] = self._counts.get(key, 0) + 1
            self._add(_REQUEST, request, seconds)
            if timer.runtime_s > 0:
                self._add(_RUNTIME, (model, api, ("runtime", "TF1")), timer.runtime_s)

    def _add(self, name: str, labels: tuple[tuple[str, str], ...], seconds: float) -> None:
        histogram = self._times[name].get(labels)
        if histogram is None:
            histogram = self._times[name][labels] = _Histogram()
        histogram.add(seconds * 1e6)

    def page(self) -> str:
        """The metrics in Prometheus' text format."""
        lines = [f"# TYPE {_COUNT} counter"]
        with self._lock:
            for (model, status), count in sorted(self._counts.items()):
                labels = _labels((("model_name", model), ("status", status)))
                lines.append(f"{_COUNT}{{{labels}}} {count}")
            for name, histograms in self._times.items():
                lines.append(f"# TYPE {name} histogram")
                for key, histogram in sorted(histograms.items()):
                    lines.extend(histogram.lines(name, _labels(key)))
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


class _Histogram:
    def __init__(self) -> None:
        self._buckets = [0] * (len(_LIMITS) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._buckets[bisect_left(_LIMITS, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        lines, cumulative = [], 0
        for limit, count in zip([*map("{:g}".format, _LIMITS), "+Inf"], self._buckets, strict=True):
            cumulative += count
            lines.append(f'{name}_bucket{{{labels},le="{limit}"}} {cumulative}')
        lines.append(f"{name}_sum{{{labels}}} {self._sum:.3f}")
        lines.append(f"{name}_count{{{labels}}} {cumulative}")
        return lines


def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return ",".join(f'{name}="{quoted(value)}"' for name, value in pairs)
