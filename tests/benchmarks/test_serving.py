"""The load test: its bounds, its counts, and a whole run against a local server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis import predict_pb2

from benchmarks import serving
from benchmarks.serving import Cell, Plan, main, make_run, model_times
from benchmarks.serving_load import (
    ConstantLoad,
    GrpcSender,
    RequestFailed,
    RestSender,
    closed_loop,
)
from benchmarks.serving_requests import ServingRequests
from benchmarks.serving_server import loopback
from benchmarks.serving_swap import measure_swap
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.archive import described_signatures
from lfm4ads_tf.export.blessing import bless, file_digests
from lfm4ads_tf.export.local_server.server import LocalServer

USERS, ITEMS = ["a", "bb", None, "dddd"], ["x", "yy", "zzz", "x"]
SPEC = {
    "name": "tiny",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "u", "item": "i", "time": "t"},
    "tasks": {"click": "c"},
    "split": {"by": "t", "train_until": 1, "valid_until": 2},
    "features": {
        "u": {"kind": "hashed", "owner": "user"},
        "i": {"kind": "hashed", "owner": "item"},
        "hour": {"kind": "identity", "owner": "context", "size": 24},
    },
}
TINY = Plan(
    cells=[
        Cell("predict", "gRPC", 3, 2),
        Cell("predict", "gRPC", 512, 1),
        Cell("predict", "REST", 2, 1),
        Cell("rank", "gRPC", 5, 1),
        Cell("retrieval_exact", "gRPC", 1, 1),
    ],
    rounds=2, seconds=5.0, requests=12, swaps=1, steady=0.4, budget=30.0,
)  # fmt: skip


class Toy(tf.Module):
    """Scores a pair by the lengths of its keys."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = {n: tf.io.FixedLenFeature([], tf.string, "") for n in ("u", "i")}
        parsed = tf.io.parse_example(examples, columns)
        return self._score(parsed["u"], parsed["i"])

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.string, name="u"),
            tf.TensorSpec([None], tf.string, name="i"),
            tf.TensorSpec([None], tf.int64, name="hour"),
        ]
    )
    def rank(self, u: tf.Tensor, i: tf.Tensor, hour: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._score(u, i) if hour is not None else {}

    def _score(self, u: tf.Tensor, i: tf.Tensor) -> dict[str, tf.Tensor]:
        lengths = tf.strings.length(u) + 10 * tf.strings.length(i)
        return {"click": tf.cast(lengths, tf.float32)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder with what a load test reads, and one blessed export."""
    out = tmp_path / "run"
    version = out / "exports" / "ranker_1" / "1"
    toy = Toy()
    signatures = {"serving_default": toy.serving_default, "rank": toy.rank}
    tf.saved_model.save(toy, str(version), signatures=signatures)
    contract = {
        "columns": {"u": "text", "i": "text", "hour": "integer"},
        "representations": {},
        "user_columns": ["u"],
        "item_columns": ["i"],
        "signatures": described_signatures(version),
    }
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "contract.json").write_text(json.dumps(contract))
    bless(version, {"files": file_digests(version)}, model="ranker_1")
    (out / "config.yaml").write_text(yaml.safe_dump({"spec": SPEC}))
    (out / "data").mkdir()
    hours = pa.array([1, 2, None, 4])
    samples = pa.table({"row": range(4), "u": USERS, "i": ITEMS, "hour": hours})
    pq.write_table(samples, out / "data" / "samples.parquet")
    return out


@pytest.fixture
def server(out: Path) -> Iterator[LocalServer]:
    with LocalServer(exports=out / "exports", file_system_poll_wait_seconds=0.1) as server:
        yield server


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("grpc://127.0.0.1:8500", "127.0.0.1:8500"),
        ("grpc://127.9.9.9:1", "127.9.9.9:1"),
        ("grpc://[::1]:8500", "[::1]:8500"),
        ("grpc://localhost:8500", "localhost:8500"),
    ],
)
def test_loopback_addresses_are_taken(url: str, address: str) -> None:
    assert loopback(url, "grpc") == address


@pytest.mark.parametrize(
    "url",
    [
        "grpc://10.0.0.1:8500",
        "grpc://0.0.0.0:8500",
        "grpc://128.0.0.1:8500",
        "grpc://[::2]:8500",
        "grpc://127.0.0.1.example.com:8500",
        "grpc://localhost@example.com:8500",
        "grpc://2130706433:8500",
    ],
)
def test_other_addresses_are_refused_before_anything_is_sent(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--server", url]) == 2
    assert "loopback only" in capsys.readouterr().err
    rest = url.replace("grpc", "http")
    assert main(["--out", str(tmp_path), "--server", "grpc://[::1]:1", "--rest", rest]) == 2
    assert "loopback only" in capsys.readouterr().err


class Slow:
    """A connection that answers after a while; every third request of all fails."""

    lock = threading.Lock()

    def __init__(self, seconds: float, sent: list[bytes], closed: list[int]) -> None:
        self.seconds, self.sent, self.closed = seconds, sent, closed

    def send(self, payload: bytes) -> bytes:
        with self.lock:
            self.sent.append(payload)
            number = len(self.sent)
        time.sleep(self.seconds)
        if number % 3 == 0:
            raise RequestFailed("UNAVAILABLE")
        return payload

    def close(self) -> None:
        self.closed.append(1)


def test_closed_loop_ends_at_its_number_of_requests_and_counts_failures() -> None:
    sent: list[bytes] = []
    closed: list[int] = []
    load = closed_loop(
        lambda: Slow(0.002, sent, closed), [b"a", b"b"], threads=3, requests=30, seconds=60
    )
    assert len(sent) == 30 and len(closed) == 3
    assert sent.count(b"a") == sent.count(b"b") == 15
    assert load.failures == {"UNAVAILABLE": 10} and len(load.seconds) == 20
    assert load.seconds.min() >= 0.002
    assert load.wall >= 30 / 3 * 0.002


def test_closed_loop_ends_at_its_time() -> None:
    sent: list[bytes] = []
    began = time.perf_counter()
    load = closed_loop(lambda: Slow(0.05, sent, []), [b"a"], threads=2, requests=10**9, seconds=0.3)
    assert time.perf_counter() - began < 5
    assert 2 <= len(sent) <= 14  # 0.3 / 0.05 + 1 of each thread, if the machine is idle
    assert len(load.seconds) + load.failures.get("UNAVAILABLE", 0) == len(sent)


def test_closed_loop_does_not_wait_for_a_thread_that_cannot_connect() -> None:
    tries: list[int] = []

    def connect() -> Slow:
        tries.append(1)
        if len(tries) == 2:
            raise OSError("no socket")
        return Slow(0.0, [], [])

    with pytest.raises(OSError, match="no socket"):
        closed_loop(connect, [b"a"], threads=3, requests=10, seconds=60)


def test_constant_load_counts_the_wait_for_a_free_thread() -> None:
    load = ConstantLoad(
        lambda: Slow(0.05, [], []), [b"a"], threads=1, rate=100.0, seconds=0.2, read=len
    )
    end = time.monotonic() + 60
    with load:
        while len(load.answers) < 20 and time.monotonic() < end:
            time.sleep(0.05)
    answers = load.answers
    assert len(answers) == 20
    np.testing.assert_allclose(np.diff([a.due for a in answers]), 0.01, atol=1e-6)
    # request k was due at 10 k ms, and begun when the k before it had taken 50 ms each
    assert all(a.seconds >= 0.05 + 0.04 * k - 1e-3 for k, a in enumerate(answers))
    assert [a.failure for a in answers[:3]] == [None, None, "UNAVAILABLE"]
    assert [a.seen for a in answers[:3]] == [1, 1, None]


def test_model_times_are_sums_of_one_model() -> None:
    page = """# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_sum{model_name="m",API="Predict",entrypoint="GRPC"} 100.5
:tensorflow:serving:request_latency_sum{model_name="m",API="Predict",entrypoint="REST"} 10
:tensorflow:serving:request_latency_count{model_name="m",API="Predict",entrypoint="REST"} 7
:tensorflow:serving:request_latency_sum{model_name="mm",API="Predict",entrypoint="GRPC"} 1000
:tensorflow:serving:runtime_latency_sum{model_name="m",API="Predict",runtime="TF1"} 9e1
"""
    np.testing.assert_array_equal(model_times(page, "m"), [90.0, 110.5])


def test_requests_are_those_of_the_samples(out: Path, server: LocalServer) -> None:
    possible = {len(u or "") + 10 * len(i) for u, i in zip(USERS, ITEMS, strict=True)}
    sender = GrpcSender(server.grpc_address)
    requests = ServingRequests(out, "ranker_1")
    scores: list[float] = []
    for payload in requests.predict(3, 20):
        scores += _outputs(sender.send(payload))
    assert len(scores) == 60 and set(scores) == possible
    rest = RestSender(server.rest_address[len("http://") :], "/v1/models/ranker_1:predict")
    body = requests.predict_json(3, 1)[0]
    assert set(json.loads(rest.send(body))["outputs"]) <= possible
    ranked = [_outputs(sender.send(payload)) for payload in requests.rank(6, 20)]
    assert all(len(of) == 6 and len({s % 10 for s in of}) == 1 for of in ranked)
    assert {s for of in ranked for s in of} > possible  # users meet other items than their own
    with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
        sender.send(b"")
    with pytest.raises(RequestFailed, match="HTTP 400"):
        rest.send(b"{")
    assert len(json.loads(rest.send(body))["outputs"]) == 3
    sender.close()
    rest.close()


def test_a_run_against_a_given_server(
    out: Path,
    server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(serving, "QUICK", TINY)
    file = out / "serving.json"
    code = main(
        ["--quick", "--out", str(out), "--json", str(file), "--server"]
        + [f"grpc://{server.grpc_address}", "--rest", server.rest_address]
        + ["--served-from", str(out / "exports")]
    )
    result = json.loads(file.read_text())
    assert code == 0, capsys.readouterr()
    assert result["model"] == "ranker_1" and result["rounds"] == 2
    assert result["left_out"] == {"retrieval_exact gRPC 1x1": "'retrieval_exact' is not exported"}
    names = [(c["name"], c["api"], c["batch"], c["threads"]) for c in result["cells"]]
    assert names == [(c.name, c.api, c.batch, c.threads) for c in TINY.cells[:-1]]
    for cell in result["cells"]:
        assert cell["requests"] == 24 and cell["failed"] == 0
        ms = list(cell["ms"].values())
        assert 0 < ms[0] and ms == sorted(ms)
        assert 0 < cell["model_share"] < 1
        assert cell["rows_per_s"] == pytest.approx(cell["requests_per_s"] * cell["batch"], rel=0.01)
    swap = result["swap"]
    assert swap["failed"] == 0 and swap["completed"] and swap["swaps"] == 1
    assert set(swap["answered_by"]) == {"1", "2"}
    assert sum(swap["answered_by"].values()) == swap["requests"]
    assert swap["before"]["requests"] > 0
    assert "Failed requests in swaps: 0" in capsys.readouterr().out


def test_failed_requests_of_a_swap_are_counted(out: Path, server: LocalServer) -> None:
    good, bad = ServingRequests(out, "ranker_1").predict(1, 1)[0], b""
    folder = out / "exports" / "ranker_1"
    found = measure_swap(server.grpc_address, "ranker_1", folder, [good, bad], swaps=1, steady=0.3)
    assert set(found["failures"]) == {"INVALID_ARGUMENT"}
    assert abs(found["failed"] - found["requests"] / 2) <= 1


def test_a_swap_needs_the_folder_of_the_server(out: Path, server: LocalServer) -> None:
    with pytest.raises(UserError, match="(?s)newest version.*available \\[1\\]"):
        measure_swap(server.grpc_address, "ranker_1", out / "elsewhere", [b""])


def test_options_that_do_not_go_together_are_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--rest", "http://127.0.0.1:1"], "go with --server"),
        (["--server", "grpc://127.0.0.1:1"], "--out"),
        (["--out", str(tmp_path / "none")], "no exports"),
        (["--out", str(out), "--server", "http://127.0.0.1:1"], "no address of a server"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_a_server_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")
    monkeypatch.setattr(serving, "QUICK", TINY)
    file = tmp_path / "serving.json"
    assert main(["--quick", "--out", str(tmp_path / "run"), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["model"] == "ranker_feed" and not result["left_out"]
    assert len(result["cells"]) == len(TINY.cells) and result["k"]["retrieval_exact"] > 0
    assert set(result["swap"]["answered_by"]) == {"1", "2"}
    assert [v.name for v in (tmp_path / "run" / "exports" / "ranker_feed").iterdir()] == ["1"]


def _outputs(answer: bytes) -> list[float]:
    response = predict_pb2.PredictResponse.FromString(answer)
    return tf.make_ndarray(response.outputs["click"]).tolist()
