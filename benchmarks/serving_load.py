"""Load on a model server: connections, closed loops, and a constant rate in the background."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import grpc
import numpy as np

_TIMEOUT = 30.0  # seconds, of one request
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Sender(Protocol):
    """A connection of one client thread."""

    def send(self, payload: bytes) -> bytes:
        """Sends a request and returns its answer; raises when it is not answered with a result."""

    def close(self) -> None:
        """Closes the connection."""


class RequestFailed(Exception):
    """A request that was not answered with a result; its text is the code."""


class GrpcSender:
    """Predict over gRPC with ready-made bytes: nothing is serialized or parsed.

    Args:
        address: host:port.
    """

    def __init__(self, address: str) -> None:
        self._channel = open_channel(address)
        self._predict = self._channel.unary_unary(_PREDICT)

    def send(self, payload: bytes) -> bytes:
        """See `Sender`."""
        try:
            answer: bytes = self._predict(payload, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise RequestFailed(error.code().name) from error
        return answer

    def close(self) -> None:
        """See `Sender`."""
        self._channel.close()


class RestSender:
    """A REST connection that is kept open.

    Args:
        address: host:port.
        path: Where bodies are posted.
    """

    def __init__(self, address: str, path: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=_TIMEOUT)
        self._path = path

    def send(self, payload: bytes) -> bytes:
        """See `Sender`."""
        try:
            self._connection.request(
                "POST", self._path, payload, {"Content-Type": "application/json"}
            )
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens it again
            raise RequestFailed(type(error).__name__) from error
        if response.status != 200:
            raise RequestFailed(f"HTTP {response.status}")
        return answer

    def close(self) -> None:
        """See `Sender`."""
        self._connection.close()


@dataclass(frozen=True)
class Load:
    """What a load has seen.

    Attributes:
        seconds: Time of each request that was answered with a result, (R,).
        failures: Code -> requests that were not.
        wall: Seconds from the first request to the last answer.
    """

    seconds: np.ndarray
    failures: dict[str, int]
    wall: float


def open_channel(address: str) -> grpc.Channel:
    """A connection of its own, without a limit of message size, never through a proxy."""
    return grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
        ],
    )


def closed_loop(
    connect: Callable[[], Sender],
    payloads: Sequence[bytes],
    *,
    threads: int,
    requests: int,
    seconds: float,
    warmup: int = 0,
    ready: Callable[[], object] = lambda: None,
) -> Load:
    """Every thread sends its next request when it has the answer to the one before.

    Args:
        connect: Opens a connection; each thread gets its own.
        payloads: Requests, taken in turn.
        threads: Requests under way at a time.
        requests: Requests of all threads together.
        seconds: No request is begun after them; a begun one has 30 s more.
        warmup: Requests of each thread before, which do not count; a quarter of `seconds` at most.
        ready: Called once between warm-up and load.

    Returns:
        The load.
    """
    numbers = itertools.count()  # `next` on it is atomic
    ends = [0.0]
    taken: list[list[float]] = [[] for _ in range(threads)]
    failures: list[Counter[str]] = [Counter() for _ in range(threads)]
    broken: list[BaseException] = []

    def begin() -> None:
        ready()
        ends[0] = time.perf_counter() + seconds

    barrier = threading.Barrier(threads, begin)

    def work(index: int) -> None:
        sender: Sender | None = None
        try:
            sender = connect()
            _warm(sender, payloads, index, warmup, seconds / 4)
            barrier.wait()
            while (number := next(numbers)) < requests and time.perf_counter() < ends[0]:
                began = time.perf_counter()
                try:
                    sender.send(payloads[number % len(payloads)])
                except RequestFailed as failed:
                    failures[index][str(failed)] += 1
                else:
                    taken[index].append(time.perf_counter() - began)
        except BaseException as error:
            broken.append(error)
            barrier.abort()
        finally:
            if sender is not None:
                sender.close()

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall = time.perf_counter() - (ends[0] - seconds)
    for error in sorted(broken, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    total = sum(failures, Counter[str]())
    return Load(np.array(sum(taken, [])), dict(total), wall)


def _warm(
    sender: Sender, payloads: Sequence[bytes], index: int, count: int, seconds: float
) -> None:
    end = time.perf_counter() + seconds
    for k in range(count):
        try:
            sender.send(payloads[(index + k) % len(payloads)])
        except RequestFailed:
            return  # the load will count it
        if time.perf_counter() > end:
            return


@dataclass(frozen=True)
class Answer:
    """A request of a constant load.

    Attributes:
        due: When it should have been sent, on `time.perf_counter`.
        seconds: From then to its answer: a wait for a free thread counts.
        failure: Code, or None.
        seen: What `read` made of the answer.
    """

    due: float
    seconds: float
    failure: str | None
    seen: Any


class ConstantLoad:
    """Requests at a constant rate, in the background of a `with` block.

    Args:
        connect: Opens a connection; each thread gets its own.
        payloads: Requests, taken in turn.
        threads: Requests that can be under way at a time.
        rate: Requests per second.
        seconds: The load ends after them at the latest.
        read: Reads an answer, after its time has been taken.
    """

    def __init__(
        self,
        connect: Callable[[], Sender],
        payloads: Sequence[bytes],
        *,
        threads: int,
        rate: float,
        seconds: float,
        read: Callable[[bytes], Any],
    ) -> None:
        self._connect = connect
        self._payloads = payloads
        self._rate = rate
        self._read = read
        self._stopping = threading.Event()
        self._began = time.perf_counter()
        self._end = self._began + seconds
        self._numbers = itertools.count()
        self._answers: list[list[Answer]] = [[] for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(answers,), daemon=True)
            for answers in self._answers
        ]

    def __enter__(self) -> ConstantLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[Answer]:
        """All requests, in the order in which they were due."""
        return sorted(sum(self._answers, []), key=lambda answer: answer.due)

    def _work(self, answers: list[Answer]) -> None:
        sender = self._connect()
        try:
            while True:
                number = next(self._numbers)
                due = self._began + number / self._rate
                if due >= self._end or self._stopping.wait(max(0.0, due - time.perf_counter())):
                    return
                failure, seen, received = None, None, b""
                try:
                    received = sender.send(self._payloads[number % len(self._payloads)])
                except RequestFailed as failed:
                    failure = str(failed)
                taken = time.perf_counter() - due
                if failure is None:
                    seen = self._read(received)
                answers.append(Answer(due, taken, failure, seen))
        finally:
            sender.close()
