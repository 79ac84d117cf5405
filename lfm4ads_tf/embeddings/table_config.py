"""One logical embedding table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lfm4ads_tf.embeddings.config import ServedStorage, Storage
from lfm4ads_tf.embeddings.hashing import Hashing


@dataclass(frozen=True)
class TableConfig:
    """One logical table.

    Args:
        name: Unique name; checkpoints are carried over by it.
        rows: Number of ids, [0, rows). One more row is kept for the missing id, -1.
        dim: Width D of one embedding.
        init_scale: Standard deviation ("normal") or bound ("uniform") of the initial values.
        storage: Type in which the weights are kept; every computation is float32, and an updated
            row is rounded to the nearest value of the type. "int8" is for inference alone, see
            `QuantizedTable`.
        trainable: Whether an optimizer may change it.
        group: Name of its learning-rate group, see `HybridOptimizer`; "" is the default group.
        hashing: Several hashes per id instead of one row per id.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> table = lfm.TableConfig("item", rows=1000, dim=16, storage="bfloat16")
        >>> table.stored_rows
        1000
    """

    name: str
    rows: int
    dim: int
    init_scale: float = 0.01
    storage: Storage | ServedStorage = "float32"
    trainable: bool = True
    group: str = ""
    hashing: Hashing | None = None

    @property
    def stored_rows(self) -> int:
        """Rows kept for the ids, the missing id's apart."""
        return self.rows if self.hashing is None else self.hashing.stored_rows(self.rows)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TableConfig:
        """The table of `dataclasses.asdict`, perhaps through JSON."""
        hashing = values.get("hashing")
        return cls(**{**values, "hashing": None if hashing is None else Hashing(**hashing)})
