"""What a client of a model server raises."""

from __future__ import annotations

from lfm4ads_tf.errors import UserError


class ServingError(UserError):
    """A request that was not answered with a result.

    Args:
        code: Name of the gRPC status code, over REST too, such as `NOT_FOUND`.
        what: What is wrong, one sentence.
        received: What was found instead.
        fix: How to mend it.
    """

    def __init__(
        self, code: str, what: str, *, received: object = None, fix: str | None = None
    ) -> None:
        super().__init__(what, received=received, fix=fix)
        self.code = code


_FIXES = {
    "NOT_FOUND": "check the model's name and version, and with `status()` whether it is loaded",
    "UNAVAILABLE": "check the address, and whether the server runs and has loaded its models",
    "DEADLINE_EXCEEDED": "raise the deadline, or send fewer rows a request",
    "UNAUTHENTICATED": "pass the credentials that the proxy in front of the server asks for in "
    "`headers`",
    "PERMISSION_DENIED": "check the credentials in `headers`",
    "RESOURCE_EXHAUSTED": "send fewer rows a request, or fewer requests at a time",
    "UNIMPLEMENTED": "check that a model server listens at this address and port",
    "INVALID_ARGUMENT": "compare the rows with `metadata()`, and the spec with the one that the "
    "model was trained with",
    "FAILED_PRECONDITION": "ask a signature of the method's kind; `metadata()` lists them",
}


def refused(code: str, asked: str, details: str) -> ServingError:
    """The error of a request that a server has refused, or that did not reach it.

    Args:
        code: Name of the status code.
        asked: What was asked of whom.
        details: The server's message.
    """
    received = f"{code}: {' '.join(details.split())[:2000]}"
    return ServingError(code, f"{asked} failed.", received=received, fix=_FIXES.get(code))
