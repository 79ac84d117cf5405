"""An encoded log, as the models read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lfm4ads_tf.batch import PASS_NUMBER
from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.input import PassNumber, RepresentationJoin, batches, passes
from lfm4ads_tf.data.samples import read_samples, samples_among
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import load_spec
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.training.row_weights import checked_weights
from lfm4ads_tf.training.schedule import Phase
from lfm4ads_tf.tuning.search import first_batch_size

_HELD_OUT_BATCH = 1024
Split = Literal["train", "valid", "test"]


class EncodedLog:
    """All rows of a log as logical ids and numbers, on disk; `encode` makes it.

    Attributes:
        spec: The feature spec.
        folder: Where the encoded data are.
        cache: The rows, read chunk by chunk.

    Args:
        spec: The feature spec that the folder was encoded with.
        folder: What `encode`, or a run's `prepare` (as `OUT/data`), wrote.

    Raises:
        UserError: The folder holds no encoded data, or those of another version.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> spec = lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}})
        >>> log = lfm.encode(spec)  # lfm.EncodedLog(spec, folder) opens what was kept
        >>> log.layout.tasks
        ('click', 'conversion')
        >>> batch = next(iter(log.dataset("test", batch_size=8)))
        >>> batch["labels"].shape
        TensorShape([8, 2])
    """

    def __init__(self, spec: FeatureSpec | Path | str, folder: Path | str) -> None:
        self.spec = spec if isinstance(spec, FeatureSpec) else load_spec(spec)
        self.folder = Path(folder)
        if not (self.folder / "manifest.json").exists():
            raise UserError(
                "The folder holds no encoded data.",
                received=str(folder),
                fix="make them with lfm4ads_tf.encode(spec, table, folder=...)",
            )
        self.cache = EncodedCache(self.folder)
        if self.cache.manifest.get("spec") != self.spec.name:
            raise self._other_spec(f"encoded with '{self.cache.manifest.get('spec')}'")

    def __repr__(self) -> str:
        """What it is of, and its rows."""
        rows = ", ".join(f"{len(self.cache.rows_of(s)):,} {s}" for s in ("train", "valid", "test"))
        return f"EncodedLog({self.spec.name}: {rows} rows)"

    @property
    def layout(self) -> FeatureLayout:
        """Columns of a batch; what models are made for."""
        return self.cache.layout

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that made it: raw columns -> a batch, in training and in an export."""
        fitted = FittedEncoding.load(self.folder / "encoding")
        try:
            encoder = Encoder(self.spec, fitted)
        except KeyError as error:
            raise self._other_spec(f"nothing was fitted for {error}") from error
        if encoder.layout != self.layout:
            raise self._other_spec("other features, scenarios or tasks")
        return encoder

    def _other_spec(self, found: str) -> UserError:
        return UserError(
            f"The data in '{self.folder}' were encoded with another spec than '{self.spec.name}'.",
            received=found,
            fix="give the spec that they were encoded with, or encode them anew",
        )

    def require_layout(self, layout: FeatureLayout) -> None:
        """Refuses what was made for the columns of another log.

        Args:
            layout: What it reads: all of the log's columns, or some of them.

        Raises:
            UserError: It was.
        """
        own = self.layout
        mine = {*own.fields, *own.dense, *own.tables}
        theirs = {*layout.fields, *layout.dense, *layout.tables}
        same = (own.scenarios, own.tasks) == (layout.scenarios, layout.tasks)
        if not theirs <= mine or not same:
            raise UserError(
                "The model was made for another log.",
                received=f"other {'features or tables' if same else 'scenarios or tasks'}",
                fix="give the log whose layout the model was made with",
            )

    def require(self, representations: RepresentationStore) -> None:
        """Refuses representations that were stored for other data.

        Raises:
            UserError: They were.
        """
        if representations.manifest.get("data") != self.fingerprint:
            raise UserError(
                "The representations were stored for other data than this log's.",
                received=f"data {representations.manifest.get('data')}, not {self.fingerprint}",
                fix="extract(upstream, log, chain) with this log",
            )

    def dataset(
        self,
        split: Split = "train",
        *,
        scenario: str | None = None,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        seed: int = 0,
        refresh: Refresh = "frozen",
        representations: RepresentationStore | None = None,
        sources: Sequence[str] | None = None,
        weights: np.ndarray | None = None,
    ) -> tf.data.Dataset:
        """Batches of a split.

        The k-th epoch of `fit` over a shuffled data set has the order of the k-th epoch of
        `train.py` with this seed; outside of `fit` the k-th iteration has it.

        Args:
            split: `train`, `valid` or `test`.
            scenario: A scenario or a segment; the rows of all when absent.
            batch_size: Rows a batch; the last one may be smaller. By default 1,024, and of training
                rows as many as make some 200 steps an epoch.
            shuffle: Whether each iteration has an order of its own; time order otherwise. By
                default training rows are shuffled.
            seed: Seed of the orders.
            refresh: State of the moving features and representations on valid and test rows: at
                the end of training (`frozen`), or moving with labels of earlier periods (`daily`).
            representations: Stored representations that are joined to the rows, point in time.
            sources: Those of them that are read, such as `DownstreamModel.sources`; all by default.
            weights: Factors of the losses of all N rows of the cache, (N,) or (N, T) float32.

        Returns:
            A `tf.data.Dataset` of `EncodedBatch` dictionaries: `ids` (B, F), `bags`, `dense`
            (B, N), `labels` (B, T), `scenario` (B,), `representations` name -> (B, d + 1), ...

        Raises:
            UserError: The split, scenario or a representation is unknown, or there is no row.
        """
        rows = self.rows(split, scenario)
        if refresh not in get_args(Refresh):
            raise UserError(
                f"There is no state '{refresh}'.{nearest(str(refresh), get_args(Refresh))}",
                fix=f"use {' or '.join(get_args(Refresh))}",
            )
        if batch_size is not None and batch_size < 1:
            raise UserError("A batch has at least one row.", received=f"batch_size={batch_size}")
        if weights is not None:
            weights = checked_weights(weights, self.cache)
        if not len(rows):
            raise UserError(
                f"There is no row in '{split}'" + (f" of '{scenario}'." if scenario else "."),
                fix="use another scenario, or correct `split` in the feature spec",
            )
        if batch_size is None:
            batch_size = first_batch_size(len(rows)) if split == "train" else _HELD_OUT_BATCH
        join: RepresentationJoin | None = None
        if representations is not None:
            self.require(representations)
            names = list(representations.dims) if sources is None else list(sources)
            join = representations.lookup(self.cache, names, refresh)
        if not (split == "train" if shuffle is None else shuffle):
            return batches(
                self.cache, rows, batch_size,
                refresh=refresh, representations=join, weights=weights,
            )  # fmt: skip
        count = -(-len(rows) // batch_size)
        number = PassNumber()
        data = passes(
            self.cache,
            partial(_next_pass, number, count),
            lambda k: Phase(f"epoch_{k + 1}", rows).order(seed, shuffle=True),
            batch_size,
            count=count,
            refresh=refresh,
            representations=join,
            weights=weights,
        )
        vars(data)[PASS_NUMBER] = number
        return data

    def rows(self, split: Split, scenario: str | None = None) -> np.ndarray:
        """Rows of the cache in time order, (M,).

        Args:
            split: `train`, `valid` or `test`.
            scenario: A scenario or a segment; the rows of all when absent.

        Raises:
            UserError: The split or the scenario is unknown.
        """
        known = [*self.layout.scenarios, *self.layout.segments]
        for what, name, names in (
            ("split", split, ["train", "valid", "test"]),
            ("scenario", scenario, known),
        ):
            if name is not None and name not in names:
                raise UserError(
                    f"There is no {what} '{name}'.{nearest(str(name), names)}",
                    fix=f"use one of {', '.join(names)}",
                )
        return self.cache.rows_of(split, scenario)

    def samples(self, count: int, scenario: str | None = None) -> pa.Table:
        """Raw test rows with every column that a request holds, for a try.

        Args:
            count: How many, at most as many as were kept (256 of each scenario).
            scenario: A scenario or a segment; the rows of all when absent.
        """
        kept = read_samples(self.folder)
        if scenario is not None:
            kept = samples_among(kept, self.rows("test", scenario))
        return kept.slice(0, count).drop_columns([kept.column_names[0]])

    @property
    def fingerprint(self) -> str:
        """Digest of the spec and of what was encoded."""
        return str(self.cache.manifest["fingerprint"])


def _next_pass(numbers: PassNumber, count: int) -> Iterator[tuple[int, int]]:
    """The places of the next iteration's batches."""
    number = numbers.take()
    return ((number, index) for index in range(count))
