"""gRPC or REST, by the address of the server."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.wire.grpc_transport import GrpcTransport
from lfm4ads_tf.export.wire.rest_transport import RestTransport


def open_transport(
    server: str, headers: Mapping[str, str] | None = None
) -> GrpcTransport | RestTransport:
    """The transport that an address asks for.

    Args:
        server: `grpc://host:port` or `host:port`, `grpcs://host:port`, `http(s)://host:port`.
        headers: Sent with every request.

    Raises:
        UserError: It is no such address.
    """
    url = server if "://" in server else f"grpc://{server}"
    parts = urlsplit(url)
    try:
        known = bool(parts.hostname) and (parts.port is not None or parts.scheme[:4] == "http")
    except ValueError:
        known = False
    if not known or parts.scheme not in ("grpc", "grpcs", "http", "https"):
        raise UserError(
            "This is no address of a model server.",
            received=repr(server),
            fix="give grpc://host:port (8500 as a rule) or http://host:port (8501)",
        )
    if parts.scheme in ("http", "https"):
        return RestTransport(url, headers=headers)
    return GrpcTransport(parts.netloc, secure=parts.scheme == "grpcs", headers=headers)
