"""Pretrained tables of a run's models."""

from __future__ import annotations

import logging
from pathlib import Path

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.pretrained import load_pretrained
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, table_rows
from lfm4ads_tf.pipeline.run import Run

_LOG = logging.getLogger(__name__)
_TOLD: set[tuple[Path, str]] = set()


def load_pretrained_tables(
    run: Run, embeddings: ShardedEmbedding, config: EmbeddingsConfig
) -> None:
    """Fills the tables that the configuration gives a file for; call it before training.

    Keys without a vector are warned of once, not for each model of the run.

    Args:
        run: The run, whose data are encoded.
        embeddings: Tables of a model at their initial values.
        config: Their configuration.

    Raises:
        UserError: See `load_pretrained`; or the ids of a table stand for no single raw value.
    """
    sources = {name: o.pretrained for name, o in config.tables.items() if o.pretrained is not None}
    if not sources:
        return
    fitted = FittedEncoding.load(run.out / "data" / "encoding")
    for table, source in sources.items():
        coverage = load_pretrained(embeddings, table, table_keys(run.spec, fitted, table), source)
        message = f"{coverage} ('{source.file}')"
        if (run.out, message) not in _TOLD:
            _TOLD.add((run.out, message))
            _LOG.log(logging.WARNING if coverage.missing else logging.INFO, message)


def table_keys(spec: FeatureSpec, fitted: FittedEncoding, table: str) -> list[str | None]:
    """The raw value of each id of a table as text, None for the out-of-vocabulary id.

    Raises:
        UserError: The ids do not stand for one raw value each.
    """
    encoding = encoding_of(spec, table)
    if encoding == "vocabulary":
        return [None, *fitted.vocabularies[table].values]
    if encoding == "identity":
        return [str(i) for i in range(table_rows(spec, fitted, table))]
    raise UserError(
        f"Table '{table}' cannot be loaded from a file: its ids do not stand for one value each.",
        received=f"the encoding '{encoding}'",
        fix="use the kind `vocabulary` or `identity`, or remove `pretrained` from the table",
    )
