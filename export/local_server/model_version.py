"""One version of a model as the server knows it: where it lies, its state, who uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2

from lfm4ads_tf.export.local_server.servable import Servable
from lfm4ads_tf.export.local_server.status_error import StatusError

VersionState = get_model_status_pb2.ModelVersionStatus


@dataclass
class ModelVersion:
    """A version, from its discovery to its end.

    Attributes:
        model: Name of the model.
        number: Its version.
        path: Version folder.
        state: One of `ModelVersionStatus.State`.
        error: Why it did not load; None otherwise.
        servable: What serves it while it is available.
        leases: Requests that run on it.
        files: What the folder held when loading failed: it is tried again when that changes.
    """

    model: str
    number: int
    path: Path
    state: int = VersionState.START
    error: StatusError | None = None
    servable: Servable | None = None
    leases: int = 0
    files: frozenset[tuple[str, int, int]] = field(default_factory=frozenset)
