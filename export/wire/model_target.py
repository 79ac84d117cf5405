"""Which model, and which version of it, requests go to."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tensorflow_serving.apis import model_pb2

from lfm4ads_tf.errors import UserError

HIDDEN = "__"
"""What the names of signatures begin with that are TensorFlow's own, such as the initialisation."""


@dataclass(frozen=True)
class ModelTarget:
    """A model of a server; its newest version unless a version or a label is given.

    Args:
        name: The model's name.
        version: A positive integer.
        label: A version label of the server's configuration, such as `stable`.

    Raises:
        UserError: The name is empty, or version and label are both given.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("A request names a model.", received=repr(self.name))
        if self.version is not None and self.label is not None:
            raise UserError(
                "A request goes to a version or to a label, not to both.",
                received=f"version {self.version} and label '{self.label}'",
                fix="leave one of them out",
            )
        if self.version is not None and self.version < 1:
            raise UserError("A model's version is a positive integer.", received=self.version)

    def __str__(self) -> str:
        if self.version is not None:
            return f"version {self.version} of model '{self.name}'"
        return f"model '{self.name}'" + (f" ({self.label})" if self.label is not None else "")

    def spec(self, signature: str = "") -> model_pb2.ModelSpec:
        """The target in a gRPC request."""
        spec = model_pb2.ModelSpec(name=self.name, signature_name=signature)
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label
        return spec

    def path(self) -> str:
        """The target in a REST path."""
        path = f"/v1/models/{quote(self.name, safe='@+')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{quote(self.label, safe='')}"
