"""A toy model with every kind of signature, the local server that serves it, and a real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.export.local_server.server import LocalServer
from lfm4ads_tf.export.warmup import WARMUP_FILE

MakeVersion = Callable[..., Path]

GIVEN = [os.environ.get(f"TF_SERVING_{name}") for name in ("GRPC", "REST", "MODEL_BASE")]
BINARY = shutil.which("tensorflow_model_server")
SERVERS = ["local", "real"] if all(GIVEN) or BINARY else ["local"]


@pytest.fixture
def servers() -> list[str]:
    """The servers that `target` stands for: `local`, and `real` where there is one."""
    return SERVERS


class ToyModel(tf.Module):
    """`like` = scale * sum(x), `share` = 2 * like."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = tf.Variable(scale)

    def _like(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale * tf.reduce_sum(x, axis=1)

    def _parse(self, examples: tf.Tensor) -> tf.Tensor:
        columns = {"x": tf.io.FixedLenFeature([3], tf.float32)}
        return self._like(tf.io.parse_example(examples, columns)["x"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        like = self._parse(examples)
        return {"like": like, "share": 2 * like}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="x"),
            tf.TensorSpec([None], tf.string, name="name"),
        ]
    )
    def predict(self, x: tf.Tensor, name: tf.Tensor) -> dict[str, tf.Tensor]:
        # joined, because a signature cannot return an input as it is
        return {
            "like": self._like(x),
            "name": tf.strings.join([name, "!"]),
            "name_bytes": tf.strings.join([name, "!"]),
            "rows": tf.fill([tf.shape(x)[0]], tf.cast(tf.shape(x)[0], tf.int64)),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def heads(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        like = self._parse(inputs)
        labels = tf.tile([["like", "share"]], [tf.size(like), 1])
        scores = tf.stack([like, 2 * like], axis=1)
        return {"classes": labels, "scores": scores, "like": like, "share": 2 * like}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def apart(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self._parse(inputs)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="dividend"),
            tf.TensorSpec([None], tf.int64, name="divisor"),
        ]
    )
    def divide(self, dividend: tf.Tensor, divisor: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"quotient": dividend // divisor}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="values")])
    def echo(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"values": values + 0.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="values")])
    def total(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"total": tf.reduce_sum(values)}


def _save(folder: Path, scale: float) -> None:
    model = ToyModel(scale)
    names = ("serving_default", "predict", "heads", "apart", "divide", "echo", "total")
    tf.saved_model.save(model, str(folder), signatures={n: getattr(model, n) for n in names})
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signatures = saved.meta_graphs[0].signature_def

    def derive(name: str, source: str, method: str, outputs: dict[str, str]) -> None:
        signature = signatures[name]
        signature.inputs["inputs"].CopyFrom(signatures[source].inputs["inputs"])
        for output, of in outputs.items():
            signature.outputs[output].CopyFrom(signatures[source].outputs[of])
        signature.method_name = f"tensorflow/serving/{method}"

    derive("classify", "heads", "classify", {"classes": "classes", "scores": "scores"})
    derive("only_scores", "heads", "classify", {"scores": "scores"})
    derive("bad_classify", "heads", "classify", {"labels": "classes"})
    derive("flat_classify", "heads", "classify", {"scores": "like"})
    derive("regress", "heads", "regress", {"outputs": "like"})
    derive("regress_share", "heads", "regress", {"outputs": "share"})
    derive("bad_regress", "heads", "regress", {"values": "like"})
    derive("wide_regress", "heads", "regress", {"outputs": "scores"})
    derive("regress_apart", "apart", "regress", {"outputs": "outputs"})
    file.write_bytes(saved.SerializeToString())


@pytest.fixture(scope="session")
def make_version(tmp_path_factory: pytest.TempPathFactory) -> MakeVersion:
    """make_version(model folder, version, scale): copies an export there and renames it."""
    saved: dict[float, Path] = {}

    def make(model: Path, version: int, scale: float = 1.0) -> Path:
        if scale not in saved:
            saved[scale] = tmp_path_factory.mktemp("toy")
            _save(saved[scale], scale)
        staged = model / f".staged-{version}"
        shutil.copytree(saved[scale], staged)
        return staged.rename(model / str(version))

    return make


class Messages:
    """Small messages that several tests need."""

    @staticmethod
    def example(*x: float) -> bytes:
        """A serialized `tf.Example` with the column x."""
        row = tf.train.Example()
        row.features.feature["x"].float_list.value.extend(x)
        return bytes(row.SerializeToString())

    @staticmethod
    def write_warmup(folder: Path, *logs: Any) -> None:
        """Writes `PredictionLog`s as the warm-up file of a version folder."""
        path = folder / WARMUP_FILE
        path.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for log in logs:
                writer.write(log.SerializeToString())

    @staticmethod
    def predict_log(**values: Any) -> Any:
        """A `PredictionLog` of a Predict request on `echo`."""
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.signature_name = "echo"
        for name, value in values.items():
            log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return log

    @staticmethod
    def predict(signature: str = "", model: str = "toy", **inputs: Any) -> Any:
        """A `PredictRequest`."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return request

    @staticmethod
    def channel(address: str) -> grpc.Channel:
        """A channel without limits of message size."""
        return open_channel(address)


@pytest.fixture(scope="session")
def messages() -> Messages:
    return Messages()


@dataclass
class Target:
    """A server under test, with the toy model: version 1 (scale 1, `stable`), 2 (`canary`)."""

    grpc_address: str
    rest_address: str
    channel: grpc.Channel
    real: bool

    @property
    def prediction(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    @property
    def models(self) -> Any:
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    def raw(self, method: str) -> Any:
        """A method of the PredictionService that takes and gives bytes."""
        return self.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")


def toy_config(base: Path) -> str:
    return f"""model_config_list {{ config {{
        name: "toy" base_path: "{base / "toy"}" model_platform: "tensorflow"
        model_version_policy {{ all {{}} }}
        version_labels {{ key: "stable" value: 1 }}
        version_labels {{ key: "canary" value: 2 }}
    }} }}"""


def open_channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ],
    )


@pytest.fixture(scope="session")
def local_target(
    make_version: MakeVersion, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    base = tmp_path_factory.mktemp("served")
    (base / "toy").mkdir()
    for version in (1, 2):
        make_version(base / "toy", version, float(version))
    config = base / "models.config"
    config.write_text(toy_config(base))
    with LocalServer(
        model_config_file=config, allow_version_labels_for_unavailable_models=True
    ) as server:
        with open_channel(server.grpc_address) as channel:
            yield Target(server.grpc_address, server.rest_address, channel, real=False)


@pytest.fixture(scope="session")
def real_target(
    make_version: MakeVersion, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A given server that runs elsewhere, else one started here."""
    base = tmp_path_factory.mktemp("real")
    if all(GIVEN):
        base = Path(str(GIVEN[2])) / f"lfm4ads_contract_{os.getpid()}"
        base.mkdir()
    (base / "toy").mkdir()
    for version in (1, 2):
        make_version(base / "toy", version, float(version))
    try:
        if all(GIVEN):
            grpc_address, rest_address = str(GIVEN[0]), str(GIVEN[1]).rstrip("/")
            if "://" not in rest_address:
                rest_address = f"http://{rest_address}"
            with open_channel(grpc_address) as channel:
                _load_toy(channel, base)
                yield Target(grpc_address, rest_address, channel, real=True)
        else:
            yield from _started(str(BINARY), base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _load_toy(channel: grpc.Channel, base: Path) -> None:
    """Loads the versions first: only then may labels name them."""
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    config = text_format.Parse(toy_config(base), model_server_config_pb2.ModelServerConfig())
    bare = model_server_config_pb2.ModelServerConfig()
    bare.CopyFrom(config)
    bare.model_config_list.config[0].version_labels.clear()
    deadline = time.monotonic() + 60
    for step in (bare, config):
        while True:
            try:
                stub.HandleReloadConfigRequest(
                    model_management_pb2.ReloadConfigRequest(config=step), timeout=60
                )
                break
            except grpc.RpcError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def _started(binary: str, base: Path) -> Iterator[Target]:
    config, monitoring = base / "models.config", base / "monitoring.config"
    config.write_text(toy_config(base))
    monitoring.write_text(
        'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }'
    )
    grpc_port, rest_port = _free_port(), _free_port()
    process = subprocess.Popen(
        [
            binary,
            f"--port={grpc_port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={config}",
            f"--monitoring_config_file={monitoring}",
            "--allow_version_labels_for_unavailable_models=true",
        ]
    )
    rest = f"http://127.0.0.1:{rest_port}"
    try:
        _await_available(f"{rest}/v1/models/toy/versions/2", process)
        with open_channel(f"127.0.0.1:{grpc_port}") as channel:
            yield Target(f"127.0.0.1:{grpc_port}", rest, channel, real=True)
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _await_available(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if b"AVAILABLE" in answer.read():
                    return
        except urllib.error.URLError:
            pass
        time.sleep(0.2)
    raise RuntimeError("tensorflow_model_server did not become ready")


@pytest.fixture(params=SERVERS)
def target(request: pytest.FixtureRequest) -> Target:
    """The local server, and the real one where there is one."""
    found: Target = request.getfixturevalue(f"{request.param}_target")
    return found
