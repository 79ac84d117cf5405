"""Configuration of embedding tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lfm4ads_tf.strict import StrictModel

Storage = Literal["float32", "bfloat16", "float16"]
"""Types in which tables are trained."""
ServedStorage = Literal["float32", "float16", "int8"]
"""Types in which tables are served."""
STORAGES = ("float32", "bfloat16", "float16", "int8")


def _trained(storage: Any) -> Any:
    if storage == "int8":
        raise ValueError(
            "int8 tables cannot be trained; use float32, bfloat16 or float16 here, and "
            "export.tables=int8 for smaller exports"
        )
    return storage


TrainedStorage = Annotated[Storage, BeforeValidator(_trained)]


class TableHashing(StrictModel):
    """Two rows per id, see `lfm4ads_tf.embeddings.hashing.Hashing`."""

    kind: Literal["double", "quotient_remainder"]
    buckets: int = Field(ge=1)


class TablePretrained(StrictModel):
    """Initial values from a file, see `lfm4ads_tf.embeddings.pretrained`.

    Attributes:
        file: Parquet, `.npz` or `.npy`; a relative path starts at the working directory.
        key: Column or array of the raw values; for a `.npy` file the file of its keys.
        vector: Column or array of the vectors, or the columns of their numbers.
        min_coverage: Smallest share of the table's keys that the file must have.
    """

    file: Path
    key: str = "key"
    vector: str | list[str] = "vector"
    min_coverage: float = Field(default=0.0, ge=0, le=1)


class TableOptions(StrictModel):
    """What sets one embedding table apart; a key that is absent has the model's value.

    Attributes:
        dim: Width, before that of the feature and of the model.
        init_scale: See `EmbeddingsConfig`.
        storage: See `EmbeddingsConfig`.
        trainable: False keeps the table as it starts.
        group: Learning-rate group, a key of `optimizer.group_rates`.
        hashing: Two rows per id instead of one.
        pretrained: Initial values from a file.
    """

    dim: int | None = Field(default=None, ge=1)
    init_scale: float | None = Field(default=None, gt=0)
    storage: TrainedStorage | None = None
    trainable: bool = True
    group: str = Field(default="", pattern=r"^[\w.-]*$")
    hashing: TableHashing | None = None
    pretrained: TablePretrained | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TableOptions:
        if self.hashing is not None and self.pretrained is not None:
            raise ValueError("a table with `hashing` has no row per key, so not `pretrained`")
        return self


class EmbeddingsConfig(StrictModel):
    """The sharded embedding tables.

    Attributes:
        dim: Width of an embedding, unless the feature gives its own.
        shards: Parts that each physical table is cut into.
        sets: Embedding sets per row (K).
        init: Distribution of the initial values.
        init_scale: Standard deviation (normal) or half-width (uniform) of the initial values.
        storage: Type in which tables are kept.
        tables_per_width: Physical tables that the tables of one width are dealt to.
        tables: Table -> what sets it apart. A table has the name of the feature that owns it.

    Raises:
        pydantic.ValidationError: A key is unknown, or a value is out of its bounds.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> config = lfm.EmbeddingsConfig(dim=8, shards=4, tables={"item_id": {"dim": 32}})
        >>> config.dim, config.tables["item_id"].dim
        (8, 32)
    """

    dim: int = Field(default=16, ge=1)
    shards: int = Field(default=1, ge=1)
    sets: int = Field(default=1, ge=1)
    init: Literal["normal", "uniform"] = "normal"
    init_scale: float = Field(default=0.01, gt=0)
    storage: TrainedStorage = "float32"
    tables_per_width: int = Field(default=1, ge=1)
    tables: dict[str, TableOptions] = {}

    def served(self, shards: int, storage: ServedStorage = "float32") -> EmbeddingsConfig:
        """The same tables for inference: of one storage, one physical table per width."""
        plain = {"storage": None, "trainable": True, "group": "", "pretrained": None}
        tables = {name: options.model_copy(update=plain) for name, options in self.tables.items()}
        return self.model_copy(
            update={
                "shards": shards, "storage": storage, "tables_per_width": 1, "tables": tables,
            }
        )  # fmt: skip
