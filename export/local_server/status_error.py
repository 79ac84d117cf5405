"""The error of a request: a canonical code and a message."""

from __future__ import annotations

import grpc
import tensorflow as tf

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """What a request is answered with when it fails, or why a version did not load.

    Args:
        code: Canonical code; gRPC sends it as it is, REST as the HTTP code that belongs to it.
        message: What is wrong.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The code as the number that `StatusProto` uses."""
        return int(self.code.value[0])

    @classmethod
    def of(cls, error: BaseException) -> StatusError:
        """The error to answer with when `error` was raised: an op's own code, else INTERNAL."""
        if isinstance(error, StatusError):
            return error
        if isinstance(error, tf.errors.OpError):
            code = _BY_NUMBER.get(error.error_code, grpc.StatusCode.UNKNOWN)
            return cls(code, str(error.message))
        if isinstance(error, MemoryError):
            return cls(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Out of memory: {error}")
        return cls(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def invalid(message: str) -> StatusError:
    """An error with the code INVALID_ARGUMENT."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)
