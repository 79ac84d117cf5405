"""How a Python function answers a unary gRPC method that takes and gives raw bytes."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from lfm4ads_tf.export.local_server.status_error import StatusError

_MAX_DETAILS = 1024
_Message = TypeVar("_Message")


def raw_method(answer: Callable[[bytes], bytes]) -> grpc.RpcMethodHandler:
    """A handler that gets the request's bytes and returns the answer's.

    Without deserializers the time that a function measures contains parsing. What it raises
    becomes a gRPC code; the server goes on.
    """

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(request)
        except Exception as error:
            failure = StatusError.of(error)
            if failure.code == grpc.StatusCode.INTERNAL and not isinstance(error, StatusError):
                traceback.print_exc()
            details = failure.message
            if len(details) > _MAX_DETAILS:  # they travel as a header, which has to be short
                details = f"{details[:_MAX_DETAILS]}...TRUNCATED"
        context.abort(failure.code, details)
        raise AssertionError("abort does not return")

    return grpc.unary_unary_rpc_method_handler(handle)


def parse_message(kind: type[_Message], data: bytes) -> _Message:
    """A message from its bytes.

    Raises:
        StatusError: INTERNAL, as gRPC's C++ server answers bytes that are no such message.
    """
    try:
        return kind.FromString(data)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise StatusError(
            grpc.StatusCode.INTERNAL, f"The request cannot be parsed: {error}"
        ) from error


def generic_handler(service: str, methods: dict[str, Any]) -> grpc.GenericRpcHandler:
    """The handler of a service: method -> function from bytes to bytes."""
    return grpc.method_handlers_generic_handler(
        service, {name: raw_method(answer) for name, answer in methods.items()}
    )
