"""What the local server does over time: versions come and go, the metrics count, it ends."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.local_server.__main__ import main
from lfm4ads_tf.export.local_server.server import LocalServer

State = get_model_status_pb2.ModelVersionStatus
ROOT = Path(__file__).parents[3]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 30 s"
        time.sleep(0.02)


def statuses(channel: grpc.Channel, model: str = "toy") -> dict[int, Any]:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request)
    return {status.version: status for status in response.model_version_status}


def test_swap_under_constant_load_fails_no_request(
    tmp_path: Path, make_version: Any, messages: Any
) -> None:
    toy = tmp_path / "toy"
    toy.mkdir()
    make_version(toy, 1, 1.0)
    request = messages.predict(examples=[messages.example(1, 2, 3)] * 8)
    served: list[tuple[int, float]] = []
    failures: list[grpc.RpcError] = []
    stop = threading.Event()

    def load(address: str) -> None:
        with messages.channel(address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not stop.is_set():
                try:
                    response = stub.Predict(request, timeout=30)
                except grpc.RpcError as error:
                    failures.append(error)
                    return
                like = tf.make_ndarray(response.outputs["like"])
                served.append((response.model_spec.version.value, float(like[0])))

    with LocalServer(exports=tmp_path, file_system_poll_wait_seconds=0.05) as server:
        clients = [threading.Thread(target=load, args=(server.grpc_address,)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for version in range(2, 6):
                make_version(toy, version, float(2 - version % 2))
                if version % 2:
                    shutil.rmtree(toy / str(version - 1))  # also gone from the disk
                eventually(lambda v=version: bool(served) and served[-1][0] == v)  # type: ignore
            shutil.rmtree(toy / "5")  # back to an older one: 3
            eventually(lambda: served[-1][0] == 3)
        finally:
            stop.set()
            for client in clients:
                client.join()
    assert not failures, failures[:3]
    assert {version for version, _ in served} == {1, 2, 3, 4, 5}
    # each answer came wholly from the version that it names: odd ones have scale 1, even ones 2
    assert {like for version, like in served if version % 2} == {6.0}
    assert {like for version, like in served if not version % 2} == {12.0}


def test_broken_version_is_reported_and_the_old_one_stays(
    tmp_path: Path, make_version: Any, messages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = tmp_path / "toy"
    toy.mkdir()
    make_version(toy, 1)
    with (
        LocalServer(exports=tmp_path, file_system_poll_wait_seconds=0) as server,
        messages.channel(server.grpc_address) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = messages.predict("echo", values=np.float32([1]))
        (toy / "staged").mkdir()  # no version: its name is no integer
        (toy / "2").mkdir()  # nothing in it
        server.poll()
        broken = make_version(toy, 3)
        data = next((broken / "variables").glob("*.data-*"))
        data.write_bytes(data.read_bytes()[:1])
        server.poll()
        assert stub.Predict(request).model_spec.version.value == 1
        cold = make_version(toy, 4)
        messages.write_warmup(cold, messages.predict_log(values=["no number"]))
        server.poll()
        assert stub.Predict(request).model_spec.version.value == 1
        found = statuses(channel)
        assert sorted(found) == [1, 2, 3, 4]
        assert found[1].state == State.AVAILABLE and not found[1].status.error_message
        for version in (2, 3, 4):
            assert found[version].state == State.END
            assert found[version].status.error_code and found[version].status.error_message
        assert found[2].status.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert "values" in found[4].status.error_message
        request.model_spec.version.value = 4
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert "toy/4 did not load" in capsys.readouterr().err
        shutil.rmtree(cold)
        make_version(toy, 4)  # mended: tried again
        server.poll()
        assert stub.Predict(request).model_spec.version.value == 4
        assert {v: s.state for v, s in statuses(channel).items()}[1] == State.END


def test_warmup_requests_of_each_kind_are_replayed(
    tmp_path: Path, make_version: Any, messages: Any
) -> None:
    (tmp_path / "toy").mkdir()
    folder = make_version(tmp_path / "toy", 1)
    classify, regress = prediction_log_pb2.PredictionLog(), prediction_log_pb2.PredictionLog()
    for log, kind in ((classify, "classify"), (regress, "regress")):
        request = getattr(log, f"{kind}_log").request
        request.model_spec.signature_name = kind
        request.input.example_list.examples.add().MergeFromString(messages.example(1, 2, 3))
    logs = [messages.predict_log(values=np.float32([1])), classify, regress]
    messages.write_warmup(folder, *logs)
    with LocalServer(exports=tmp_path) as server:
        assert server.available() == {"toy": [1]}
        # warming up is no request
        assert 'API="' not in server.metrics_page
    regress.regress_log.request.model_spec.signature_name = "classify"  # wrong method
    messages.write_warmup(folder, *logs)
    with pytest.raises(UserError, match="tensorflow/serving/regress"):
        LocalServer(exports=tmp_path)
    messages.write_warmup(folder, *[logs[0]] * 1001)
    with pytest.raises(UserError, match="1000"):
        LocalServer(exports=tmp_path)
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no records" * 9)
    with pytest.raises(UserError, match="DATA_LOSS|TFRecord"):
        LocalServer(exports=tmp_path)


def test_version_policies_and_reload_of_the_config(
    tmp_path: Path, make_version: Any, messages: Any
) -> None:
    toy = tmp_path / "toy"
    toy.mkdir()
    for version in (1, 2, 3):
        make_version(toy, version)

    def config(policy: str, labels: str = "", name: str = "toy") -> str:
        return (
            f'model_config_list {{ config {{ name: "{name}" base_path: "{toy}" '
            f'model_platform: "tensorflow" model_version_policy {{ {policy} }} {labels} }} }}'
        )

    file = tmp_path / "models.config"
    file.write_text(config("latest { num_versions: 2 }"))
    with (
        LocalServer(model_config_file=file, model_config_file_poll_wait_seconds=0.05) as server,
        messages.channel(server.grpc_address) as channel,
    ):
        assert server.available() == {"toy": [2, 3]}
        stub = model_service_pb2_grpc.ModelServiceStub(channel)

        def reload(text: str) -> Any:
            parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
            return stub.HandleReloadConfigRequest(
                model_management_pb2.ReloadConfigRequest(config=parsed)
            )

        assert reload(config("specific { versions: 1 versions: 3 }")).status.error_code == 0
        assert server.available() == {"toy": [1, 3]}
        label = 'version_labels { key: "stable" value: 2 }'
        with pytest.raises(grpc.RpcError) as caught:  # version 2 is not available
            reload(config("all {}", label))
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        reload(config("all {}"))
        reload(config("all {}", label))
        with pytest.raises(grpc.RpcError) as caught:
            reload(config("latest { num_versions: 1 }", name="nameless").replace(str(toy), "/no"))
        assert caught.value.code() == grpc.StatusCode.UNKNOWN
        assert "nameless" in caught.value.details()
        file.write_text(config("latest { num_versions: 1 }", name="renamed"))
        eventually(lambda: server.available() == {"renamed": [3], "toy": []})
    with pytest.raises(UserError, match="FAILED_PRECONDITION"):
        file.write_text(config("all {}", label))
        LocalServer(model_config_file=file)


def test_metrics_tell_requests_apart_and_the_share_of_the_model_call(
    tmp_path: Path, make_version: Any, messages: Any
) -> None:
    (tmp_path / "toy").mkdir()
    make_version(tmp_path / "toy", 1)
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    with (
        LocalServer(
            model_name="toy",
            model_base_path=tmp_path / "toy",
            monitoring_config_file=monitoring,
        ) as server,
        messages.channel(server.grpc_address) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(3):
            stub.Predict(messages.predict(examples=[messages.example(1, 2, 3)]))
        with pytest.raises(grpc.RpcError):
            stub.Predict(messages.predict(examples=[b"garbage"]))
        with pytest.raises(grpc.RpcError):
            stub.Predict(messages.predict(model='a"\n'))
        with urllib.request.urlopen(f"{server.rest_address}/metrics", timeout=30) as answer:
            page = answer.read().decode()
    counts = dict(re.findall(r"^:tensorflow:serving:request_count\{(.*)\} (\d+)$", page, re.M))
    assert counts == {
        'model_name="toy",status="OK"': "3",
        'model_name="toy",status="INVALID_ARGUMENT"': "1",
        'model_name="a\\"\\n",status="NOT_FOUND"': "1",
    }

    def sum_of(metric: str, labels: str) -> float:
        pattern = rf":tensorflow:serving:{metric}_sum\{{{re.escape(labels)}\}} (.*)"
        found = re.search(pattern, page)
        assert found, page
        return float(found[1])

    labels = 'model_name="toy",API="Predict",'
    requests = sum_of("request_latency", f'{labels}entrypoint="GRPC",status="OK"')
    requests += sum_of("request_latency", f'{labels}entrypoint="GRPC",status="INVALID_ARGUMENT"')
    model = sum_of("runtime_latency", f'{labels}runtime="TF1"')
    assert 0 < model < requests
    buckets = re.findall(r'request_latency_bucket\{.*status="OK",le="(.*)"\} (\d+)', page)
    assert buckets[-1] == ("+Inf", "3")
    assert [int(n) for _, n in buckets] == sorted(int(n) for _, n in buckets)


def test_models_that_appear_later_are_added(
    tmp_path: Path, make_version: Any, messages: Any
) -> None:
    (tmp_path / "toy").mkdir()
    make_version(tmp_path / "toy", 1)
    with LocalServer(exports=tmp_path, file_system_poll_wait_seconds=0.05) as server:
        (tmp_path / "second").mkdir()
        make_version(tmp_path / "second", 7)
        eventually(lambda: server.available().get("second") == [7])
        assert server.available() == {"second": [7], "toy": [1]}


def test_wrong_arguments_exit_with_2(
    tmp_path: Path, make_version: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy").mkdir()
    make_version(tmp_path / "toy", 1)
    text = tmp_path / "models.config"
    text.write_text("no config")
    with LocalServer(exports=tmp_path) as server:
        taken = server.grpc_address.rsplit(":", 1)[1]
        for arguments, part in (
            ([], "exactly one of"),
            (["--exports", str(tmp_path), "--model_name", "toy"], "exactly one of"),
            (["--model_name", "toy"], "its name and its folder"),
            (["--exports", str(tmp_path / "nowhere")], "does not exist"),
            (["--exports", str(tmp_path / "toy")], "No model lies"),
            (["--model_config_file", str(text)], "text proto"),
            (["--model_config_file", str(tmp_path / "nowhere")], "text proto"),
            (["--model_name", "toy", "--model_base_path", str(tmp_path)], "no wanted version"),
            (["--exports", str(tmp_path), "--port", taken], "port cannot be bound"),
            (["--exports", str(tmp_path), "--monitoring_config_file", str(text)], "Monitoring"),
        ):
            before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
            try:
                assert main([*arguments, "--rest_api_port=0"]) == 2, arguments
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
            assert part in capsys.readouterr().err, arguments
    for arguments in (["--port", "70000"], ["--port", "x"], ["--speed", "1"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_command_serves_until_it_is_told_to_end(
    tmp_path: Path, make_version: Any, messages: Any
) -> None:
    (tmp_path / "toy").mkdir()
    make_version(tmp_path / "toy", 1)
    command = [sys.executable, "-m", "lfm4ads_tf.export.local_server", "--exports", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--port=0", "--rest_api_port=0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Serving gRPC at (\S+) and REST at (http://\S+)\n", line)
        assert found, line
        with messages.channel(found[1]) as channel:
            assert statuses(channel)[1].state == State.AVAILABLE
        with urllib.request.urlopen(f"{found[2]}/v1/models/toy", timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
