"""One signature of a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

SignatureMethod = Literal["predict", "classify", "regress"]


@dataclass(frozen=True)
class Signature:
    """What a server can be asked for under one name.

    Attributes:
        name: Key of the signature.
        function: Request -> outputs: of one tensor, or of tensors by name.
        inputs: Type of that tensor, or name -> type.
        method: API that answers it; TensorFlow Serving refuses Classify and Regress where the
            signature says otherwise.
    """

    name: str
    function: Callable[[Any], Mapping[str, tf.Tensor]]
    inputs: tf.TensorSpec | Mapping[str, tf.TensorSpec]
    method: SignatureMethod = "predict"

    @property
    def method_name(self) -> str:
        """The method as a SignatureDef spells it."""
        return f"tensorflow/serving/{self.method}"
