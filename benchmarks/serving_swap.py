"""A new version under constant load: failed requests, and latency during the swap."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
)

from benchmarks.serving_load import Answer, ConstantLoad, GrpcSender, closed_loop, open_channel
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.publishing import new_staging, publish, versions

SHARE = 0.5  # of the throughput of the same threads in a closed loop
_MOST_SECONDS = 60.0  # that a server may take to swap
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.State.Value("AVAILABLE")


def measure_swap(
    address: str,
    model: str,
    folder: Path,
    payloads: Sequence[bytes],
    *,
    threads: int = 4,
    swaps: int = 3,
    steady: float = 4.0,
) -> dict[str, Any]:
    """Publishes copies of a model's newest version one after the other, under constant load.

    Each swap comes after a window without one, so that what slows the machine meets both. A swap
    lasts from the begin of publishing to the moment at which only the new version is available.

    Args:
        address: host:port of gRPC.
        model: Name of the model.
        folder: The folder of its versions that the server reads; copies are left there.
        payloads: Requests to the model.
        threads: Client threads.
        swaps: How many.
        steady: Seconds of the window before each swap.

    Returns:
        `requests`, `failed`, `failures` (code -> number), `rate` of requests per second, `threads`,
        `swaps` that were completed, `seconds` of each, `answered_by` (version -> requests), and
        for `before` and `during` the number of requests, `p50_ms`, `p99_ms` and `max_ms`.

    Raises:
        UserError: The server does not serve the newest version of the folder.
    """
    with open_channel(address) as channel:
        serving = _available(channel, model)
        newest = max(versions(folder), default=0)
        if serving != {newest}:
            raise UserError(
                f"The server does not serve the newest version of '{model}' alone.",
                received=f"available {sorted(serving)}, in {folder}: {newest}",
                fix="name the folder that the server reads its models from",
            )
        return _measure(channel, address, model, folder, payloads, threads, swaps, steady)


def _measure(
    channel: grpc.Channel,
    address: str,
    model: str,
    folder: Path,
    payloads: Sequence[bytes],
    threads: int,
    swaps: int,
    steady: float,
) -> dict[str, Any]:
    connect: Callable[[], GrpcSender] = lambda: GrpcSender(address)  # noqa: E731
    free = closed_loop(
        connect, payloads, threads=threads, requests=10_000, seconds=steady / 2, warmup=20
    )
    rate = max(1.0, SHARE * len(free.seconds) / free.wall)
    before: list[tuple[float, float]] = []
    during: list[tuple[float, float]] = []
    completed = True
    load = ConstantLoad(
        connect,
        payloads,
        threads=threads,
        rate=rate,
        seconds=swaps * (steady + _MOST_SECONDS) + 10,
        read=_version,
    )
    with load:
        for _ in range(swaps):
            began = time.perf_counter()
            time.sleep(steady)
            before.append((began, time.perf_counter()))
            version, published = _publish_copy(folder)
            completed = _swapped(channel, model, version)
            during.append((published, time.perf_counter()))
            if not completed:
                break
            time.sleep(steady / 4)  # the old version's memory is freed
    answers = load.answers
    failures = Counter(a.failure for a in answers if a.failure is not None)
    answered = Counter(a.seen for a in answers if a.failure is None)
    return {
        "requests": len(answers),
        "failed": sum(failures.values()),
        "failures": dict(failures),
        "rate": round(rate, 1),
        "threads": threads,
        "swaps": len(during) if completed else len(during) - 1,
        "completed": completed,
        "seconds": [round(end - start, 2) for start, end in during],
        "answered_by": {str(v): n for v, n in sorted(answered.items())},
        "before": _latency(answers, before),
        "during": _latency(answers, during),
    }


def _publish_copy(folder: Path) -> tuple[int, float]:
    """Publishes a copy of the newest version; its number, and when that was done."""
    newest = folder / str(max(versions(folder)))
    staging = new_staging(folder)
    try:
        # Links: a copy's reading and writing would be part of the load.
        shutil.copytree(newest, staging, copy_function=_link, dirs_exist_ok=True)
        began = time.perf_counter()
        return int(publish(staging, folder).name), began
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _swapped(channel: grpc.Channel, model: str, version: int) -> bool:
    """Waits until only a version is available; whether it came to that."""
    end = time.perf_counter() + _MOST_SECONDS
    while time.perf_counter() < end:
        if _available(channel, model) == {version}:
            return True
        time.sleep(0.05)
    return False


def _available(channel: grpc.Channel, model: str) -> set[int]:
    """Versions that take requests."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    try:
        status = stub.GetModelStatus(request, timeout=10.0)
    except grpc.RpcError as error:
        raise UserError(
            f"The server does not tell the status of '{model}'.",
            received=f"{error.code().name}: {error.details()}",
        ) from error
    return {of.version for of in status.model_version_status if of.state == _AVAILABLE}


def _version(answer: bytes) -> int:
    """The version that answered."""
    return int(predict_pb2.PredictResponse.FromString(answer).model_spec.version.value)


def _latency(
    answers: Sequence[Answer], windows: Sequence[tuple[float, float]]
) -> dict[str, float | None]:
    """Of the requests that were due in some windows of time."""
    taken = [
        1000 * a.seconds
        for a in answers
        if a.failure is None and any(start <= a.due < end for start, end in windows)
    ]
    if not taken:
        return {"requests": 0, "p50_ms": None, "p99_ms": None, "max_ms": None}
    p50, p99 = np.percentile(taken, [50, 99])
    return {
        "requests": len(taken),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "max_ms": round(max(taken), 3),
    }
