"""A published export, asked as a server would be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Outputs = dict[str, np.ndarray]


class ReplayTarget(Protocol):
    """Answers Predict requests of serialized `tf.Example`s.

    Attributes:
        where: Who answers, for messages.
    """

    where: str

    def run(self, signature: str, examples: Sequence[bytes]) -> Outputs:
        """Outputs of a signature for B rows, name -> (B, ...).

        Raises:
            UserError: The signature is not there, or the request fails.
        """

    def close(self) -> None:
        """Gives back what it holds."""
