"""Runs that were prepared before a value had one text, told when new files meet them."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.samples import read_samples
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.value_texts import value_texts

_LOG = logging.getLogger(__name__)


def warn_older_texts(data: Path) -> None:
    """Warns where a run's data hold texts that files no longer give, such as `7.0`.

    Looked at are the vocabularies and the sample of raw rows, which has the texts that are hashed.

    Args:
        data: `OUT/data`.
    """
    held: dict[str, pa.Array] = {}
    samples = read_samples(data)
    for name in samples.column_names:
        column = samples[name].combine_chunks()
        held[f"column '{name}'"] = column.flatten() if pa.types.is_list(column.type) else column
    for name, vocabulary in FittedEncoding.load(data / "encoding").vocabularies.items():
        held[f"feature '{name}'"] = pa.array(vocabulary.values, pa.string())
    for place, texts in held.items():
        if not pa.types.is_string(texts.type):
            continue
        now = value_texts(texts)
        changed = pc.fill_null(pc.not_equal(now, texts), False)
        count = pc.sum(changed).as_py()
        if count:
            at = pc.index(changed, True).as_py()
            _LOG.warning(
                "this run was prepared by an older version: %s holds '%s', which files now give "
                "as '%s' (%d such values), so that new rows do not match it; prepare and train "
                "the run again",
                place,
                texts[at],
                now[at],
                count,
            )
            return
