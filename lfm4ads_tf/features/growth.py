"""Vocabularies that go on growing with new rows; nothing that was settled changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.fitting import occurrences
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, table_of
from lfm4ads_tf.features.vocabulary import Vocabulary

Waiting = dict[str, dict[str, int]]
"""Table -> value that is not admitted yet -> its occurrences so far."""

_FILE = "waiting.parquet"


def grow_encoding(
    spec: FeatureSpec,
    fitted: FittedEncoding,
    columns: raw_values.Columns,
    rows: int,
    *,
    base: int,
    waiting: Waiting,
) -> tuple[FittedEncoding, Waiting]:
    """Admits new values behind the known ones, each at its `min_count`-th occurrence.

    Ids that exist stay as they are, and so do boundaries, moments and scenarios.

    Args:
        spec: The feature spec.
        fitted: What earlier rows settled.
        columns: Raw column -> new values (N,), in time order.
        rows: N.
        base: Ordinal of the first new row, above all earlier ones.
        waiting: Occurrences of values that the rows of earlier refreshes did not admit.

    Returns:
        The encoding, and what still waits.
    """
    grown: dict[str, Vocabulary] = {}
    left: Waiting = {}
    for name in spec.features:
        if table_of(spec, name) != name or encoding_of(spec, name) != "vocabulary":
            continue
        old = fitted.vocabularies[name]
        texts, places = occurrences(spec, name, columns, np.arange(rows))
        values = pa.array(old.values, pa.string())
        new = pc.invert(pc.is_in(texts, value_set=values))
        new = pc.and_(new, pc.not_equal(texts, ""))
        before = waiting.get(name, {})
        held = [value for value, count in before.items() for _ in range(count)]
        texts = pa.concat_arrays([pa.array(held, pa.string()), texts.filter(new)])
        ordinals = base + places[new.to_numpy(zero_copy_only=False)]
        ordinals = np.concatenate([np.full(len(held), base, np.int64), ordinals])
        least = getattr(spec.features[name], "min_count", 1)
        found = Vocabulary.fit(texts, ordinals, least)
        grown[name] = Vocabulary(
            [*old.values, *found.values], np.concatenate([old.admitted_at, found.admitted_at])
        )
        admitted = set(found.values)
        counts = pc.value_counts(texts).to_pylist()
        left[name] = {c["values"]: c["counts"] for c in counts if c["values"] not in admitted}
    return replace(fitted, vocabularies={**fitted.vocabularies, **grown}), left


def save_waiting(folder: Path, waiting: Waiting) -> None:
    """Writes what waits beside an encoding."""
    rows = [(t, v, n) for t, values in waiting.items() for v, n in values.items()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    names, types = ("table", "value", "count"), (pa.string(), pa.string(), pa.int64())
    made = {n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)}
    pq.write_table(pa.table(made), folder / _FILE)


def load_waiting(folder: Path) -> Waiting:
    """Reads what `save_waiting` wrote; nothing waits where it wrote nothing."""
    found: Waiting = {}
    if (folder / _FILE).exists():
        for row in pq.read_table(folder / _FILE).to_pylist():
            found.setdefault(row["table"], {})[row["value"]] = row["count"]
    return found
