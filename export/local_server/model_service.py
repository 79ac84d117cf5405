"""gRPC `ModelService`: GetModelStatus and HandleReloadConfigRequest."""

from __future__ import annotations

from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from lfm4ads_tf.export.local_server.grpc_handlers import generic_handler, parse_message
from lfm4ads_tf.export.local_server.model_store import ModelStore
from lfm4ads_tf.export.local_server.status_error import invalid


class ModelService:
    """Tells the state of versions and takes another list of models.

    Args:
        store: Holds the versions.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to be given to offer the service."""
        return generic_handler(
            "tensorflow.serving.ModelService",
            {
                "GetModelStatus": self.get_model_status,
                "HandleReloadConfigRequest": self.handle_reload_config_request,
            },
        )

    def get_model_status(self, data: bytes) -> bytes:
        """`GetModelStatusRequest` to `GetModelStatusResponse`."""
        request: Any = parse_message(get_model_status_pb2.GetModelStatusRequest, data)
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return bytes(model_status(self._store, request.model_spec).SerializeToString())

    def handle_reload_config_request(self, data: bytes) -> bytes:
        """`ReloadConfigRequest` to `ReloadConfigResponse`; returns when new models are loaded."""
        request: Any = parse_message(model_management_pb2.ReloadConfigRequest, data)
        self._store.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()  # OK
        return bytes(response.SerializeToString())


def model_status(store: ModelStore, model_spec: Any) -> Any:
    """A `GetModelStatusResponse`, newest version first.

    Raises:
        StatusError: See `ModelStore.status`.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in store.status(model_spec):
        status = response.model_version_status.add(version=version.number, state=version.state)
        status.status.SetInParent()
        if version.error is not None:
            status.status.error_code = version.error.number
            status.status.error_message = version.error.message
    return response
