"""The local server: TensorFlow Serving's protocols on loopback, for development and tests."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.local_server.http_server import HttpServer
from lfm4ads_tf.export.local_server.messages import MonitoringConfig
from lfm4ads_tf.export.local_server.metrics import METRICS_PATH, Metrics
from lfm4ads_tf.export.local_server.model_configs import (
    folder_config,
    read_text_proto,
    single_model_config,
)
from lfm4ads_tf.export.local_server.model_service import ModelService
from lfm4ads_tf.export.local_server.model_store import ModelStore
from lfm4ads_tf.export.local_server.prediction_service import PredictionService
from lfm4ads_tf.export.local_server.rest_handler import RestHandler
from lfm4ads_tf.export.local_server.status_error import StatusError

_HOST = "127.0.0.1"
_GRACE_S = 5.0


class LocalServer:
    """Serves SavedModels as TensorFlow Serving does, gRPC and REST; not for production.

    It takes requests as soon as it is constructed, with every model loaded and warmed up, and
    binds 127.0.0.1 only. Use it in a `with` block, or call `stop`:

        with LocalServer(exports=Path("runs/small/exports")) as server:
            channel = grpc.insecure_channel(server.grpc_address)

    Give exactly one of `exports`, `model_config_file`, or `model_name` with `model_base_path`.
    `grpc_address` is `127.0.0.1:<port>`, `rest_address` is `http://127.0.0.1:<port>`.

    Args:
        exports: Folder of models, each with integer version folders; the newest is served. Models
            that appear later are added.
        model_config_file: `ModelServerConfig` as a text proto: models, version policies, labels.
        model_name: Name of the only model.
        model_base_path: Its folder of versions.
        port: Port of gRPC; 0 for a free one.
        rest_api_port: Port of REST; 0 for a free one.
        file_system_poll_wait_seconds: How often version folders are looked at; 0 for once.
        model_config_file_poll_wait_seconds: How often the config file is read; 0 for once.
        allow_version_labels_for_unavailable_models: A new label may name a version that is not
            available yet; the real server too needs this for labels in its first config.
        monitoring_config_file: `MonitoringConfig` as a text proto; without it the metrics are at
            `/monitoring/prometheus/metrics`.
        threads: gRPC requests that are worked on at a time; None for 4 per CPU, at least 16.

    Raises:
        UserError: A file or folder is missing or wrong, a model does not load, or a port is taken.
    """

    def __init__(
        self,
        *,
        exports: Path | None = None,
        model_config_file: Path | None = None,
        model_name: str | None = None,
        model_base_path: Path | None = None,
        port: int = 0,
        rest_api_port: int = 0,
        file_system_poll_wait_seconds: float = 1.0,
        model_config_file_poll_wait_seconds: float = 0.0,
        allow_version_labels_for_unavailable_models: bool = False,
        monitoring_config_file: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self._exports = exports
        self._config_file = model_config_file
        metrics_path = _metrics_path(monitoring_config_file)
        self._config = _first_config(exports, model_config_file, model_name, model_base_path)
        self._stopping = threading.Event()
        self._stopped = False
        self._store = ModelStore(allow_version_labels_for_unavailable_models)
        self._metrics = Metrics()
        self._load_first()
        self._grpc = _grpc_server(threads)
        self._grpc.add_generic_rpc_handlers(
            (
                PredictionService(self._store, self._metrics).handler(),
                ModelService(self._store).handler(),
            )
        )
        try:
            bound = self._grpc.add_insecure_port(f"{_HOST}:{port}")
            handler = RestHandler(self._store, self._metrics, metrics_path)
            self._http = HttpServer(handler, rest_api_port)
        except (RuntimeError, OSError, OverflowError) as error:
            self._grpc.stop(None)
            self._store.close()
            raise UserError(
                "A port cannot be bound.",
                received=f"--port {port}, --rest_api_port {rest_api_port}: {error}",
                fix="name free ports, or 0 for any",
            ) from error
        self._grpc.start()
        self.grpc_address = f"{_HOST}:{bound}"
        self.rest_address = f"http://{_HOST}:{self._http.port}"
        self._watcher = threading.Thread(
            target=self._watch,
            args=(file_system_poll_wait_seconds, model_config_file_poll_wait_seconds),
            name="versions",
            daemon=True,
        )
        self._watcher.start()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def metrics_page(self) -> str:
        """What the metrics path answers, also when monitoring is switched off."""
        return self._metrics.page()

    def available(self) -> dict[str, list[int]]:
        """Model -> its versions that take requests."""
        return self._store.available()

    def poll(self) -> None:
        """Looks at the folders now, and returns when what they hold is served."""
        if self._exports is not None:
            config = folder_config(self._exports)
            if config != self._config and config.model_config_list.config:
                self._config = config
                self._store.reload(config)
                return
        self._store.poll()

    def stop(self) -> None:
        """Lets requests end (5 s at most), closes the ports and frees the models."""
        if self._stopped:
            return
        self._stopped = True
        self._stopping.set()
        self._watcher.join()
        self._http.stop()
        self._grpc.stop(_GRACE_S).wait()
        self._store.close()

    def _load_first(self) -> None:
        try:
            self._store.reload(self._config)
        except StatusError as error:
            self._store.close()
            raise UserError(
                "The models cannot be served.",
                received=f"{error.code.name}: {error.message}",
                fix="mend the named model or the model config; labels in the first config need "
                "--allow_version_labels_for_unavailable_models",
            ) from error

    def _watch(self, folder_seconds: float, config_seconds: float) -> None:
        """Polls until the server stops; whatever goes wrong is said and tried again."""
        waits = [s for s in (folder_seconds, config_seconds) if s > 0]
        if not waits:
            return
        next_folders = time.monotonic() + folder_seconds
        next_config = time.monotonic() + config_seconds
        while not self._stopping.wait(min(waits)):
            now = time.monotonic()
            try:
                if config_seconds > 0 and self._config_file is not None and now >= next_config:
                    next_config = now + config_seconds
                    self._reread()
                if folder_seconds > 0 and now >= next_folders:
                    next_folders = now + folder_seconds
                    self.poll()
            except Exception as error:
                print(f"Reloading failed: {error}", file=sys.stderr, flush=True)

    def _reread(self) -> None:
        config = read_text_proto(
            self._config_file or Path(),
            model_server_config_pb2.ModelServerConfig(),
            "model_config_file",
        )
        if config != self._config:
            self._config = config
            self._store.reload(config)


def _grpc_server(threads: int | None) -> grpc.Server:
    workers = threads or max(16, 4 * (os.cpu_count() or 1))
    return grpc.server(
        ThreadPoolExecutor(workers, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", -1),  # the real server: as much as protobuf holds
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
        ],
    )


def _first_config(
    exports: Path | None,
    config_file: Path | None,
    model_name: str | None,
    base_path: Path | None,
) -> Any:
    single = model_name is not None or base_path is not None
    if (exports is not None) + (config_file is not None) + single != 1:
        raise UserError(
            "The models to serve are not named, or in more than one way.",
            fix="give exactly one of --exports, --model_config_file, or --model_name with "
            "--model_base_path",
        )
    if config_file is not None:
        empty = model_server_config_pb2.ModelServerConfig()
        return read_text_proto(config_file, empty, "model_config_file")
    folder = exports if exports is not None else base_path
    if folder is None or (single and not model_name):
        raise UserError(
            "A single model needs its name and its folder.",
            received=f"--model_name {model_name}, --model_base_path {base_path}",
            fix="give both",
        )
    if not folder.is_dir():
        raise UserError(
            "The folder of models does not exist.",
            received=str(folder),
            fix="name a folder that an export wrote",
        )
    if exports is None:
        return single_model_config(model_name or "", folder)
    config = folder_config(exports)
    if not config.model_config_list.config:
        raise UserError(
            "No model lies in the folder of exports.",
            received=str(exports),
            fix="name a folder that holds <model>/<integer version>/saved_model.pb",
        )
    return config


def _metrics_path(file: Path | None) -> str | None:
    if file is None:
        return METRICS_PATH
    prometheus = read_text_proto(file, MonitoringConfig(), "monitoring_config_file")
    settings = prometheus.prometheus_config
    return (settings.path or METRICS_PATH) if settings.enable else None
