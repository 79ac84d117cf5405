"""A model of a running server."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.export.client import ServingClient
from lfm4ads_tf.export.skew.replay_target import Outputs
from lfm4ads_tf.features.spec import FeatureSpec

_DEADLINE = 60.0
"""Seconds of a request: a check is in no hurry, and a model may still be warming up."""


class RemoteModel:
    """A model of a running server; a `ServedModel`.

    Args:
        server: `grpc://host:port` or `http://host:port`.
        model: Name under which it is served.
        spec: The feature spec.

    Raises:
        UserError: The address cannot be used.
    """

    def __init__(self, server: str, model: str, spec: FeatureSpec) -> None:
        self.where = f"{model} at {server}"
        self._client = ServingClient(server, model, spec, deadline=_DEADLINE)

    def run(self, signature: str, examples: Sequence[bytes]) -> Outputs:
        """See `ServedModel.run`."""
        return self._client.send(signature, examples)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()
