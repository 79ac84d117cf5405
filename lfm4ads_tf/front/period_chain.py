"""Training from period to period, with a snapshot of what was known before each."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.data.input import passes
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.models.trainable_model import TrainableModel
from lfm4ads_tf.training.checkpoints import read_weights, write_weights
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import Phase, chain
from lfm4ads_tf.tuning.search import first_batch_size

_LOG = logging.getLogger(__name__)


class PeriodChain(tf_keras.callbacks.Callback):
    """The training rows in time order, period by period, and the weights that each period began by.

    A representation for a row of period d must come from weights that have seen no row of d or
    later, or the row's own label would reach its features. So an upstream is fitted along the
    chain, which keeps a snapshot at each border, and `extract` reads the snapshots.

        upstream.fit(chain.dataset(), callbacks=[chain])

    It is the schedule `chain` of `train.py`: of the same rows and seed, in the same order.

    Args:
        log: The encoded log.
        batch_size: Rows a step; by default as many as make some 200 steps of the training rows,
            where the search of `train.py` begins too.
        passes: Passes over each period.
        replay: Earlier periods whose rows are mixed into each period's.
        final_passes: Passes over all training periods after the last one, for what is served and
            what held-out rows see.
        final_decay: Factor of the learning rates from one final pass to the next.
        auxiliary_passes: Passes over the auxiliary rows before the first period.
        seed: Seed of the orders.
        folder: Where the snapshots go; a temporary folder when absent, which is removed with the
            chain.

    Raises:
        UserError: The folder holds something already.

    Source: LFM4Ads (arXiv 2508.14948) extracts daily; that the weights are daily too is ours.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> chain = lfm.PeriodChain(log, batch_size=256)
        >>> upstream = lfm.FoundationModel(log.layout, seed=1)
        >>> upstream.compile(lfm.HybridOptimizer())
        >>> history = upstream.fit(chain.dataset(), callbacks=[chain], verbose=0)
        >>> len(chain.snapshots) == len(set(log.cache.period[log.rows("train")]))
        True
    """

    def __init__(
        self,
        log: EncodedLog,
        *,
        batch_size: int | None = None,
        passes: int = 1,
        replay: int = 0,
        final_passes: int = 0,
        final_decay: float = 1.0,
        auxiliary_passes: int = 1,
        seed: int = 0,
        folder: Path | str | None = None,
    ) -> None:
        super().__init__()
        if batch_size is None:
            batch_size = first_batch_size(len(log.cache.train_rows))
        config = TrainingConfig(
            schedule="chain", batch_size=batch_size, passes=passes, replay=replay,
            final_passes=final_passes, final_decay=final_decay, auxiliary_passes=auxiliary_passes,
        )  # fmt: skip
        self.log = log
        self.config = config
        self.seed = seed
        self.phases: list[Phase] = chain(config, log.cache)
        counts = [-(-len(phase.rows) // batch_size) for phase in self.phases]
        self._ends = [sum(counts[: k + 1]) for k in range(len(counts))]
        self._counts = counts
        self._next = 0  # phase whose first batch comes next
        if folder is None:
            folder = tempfile.mkdtemp(prefix="lfm4ads_tf_")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = Path(folder)
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                "The folder of the snapshots is not empty.",
                received=str(folder),
                fix="give another one",
            )

    @property
    def snapshots(self) -> list[int]:
        """Periods from which the snapshots that are kept are valid."""
        kept = (self.folder / "snapshots").glob("*")
        return sorted(int(path.name) for path in kept if path.name.isdigit())

    @property
    def complete(self) -> bool:
        """Whether a model was fitted along the whole chain."""
        return (self.folder / "weights").exists()

    def dataset(self) -> tf.data.Dataset:
        """The batches of all phases; one iteration is the whole chain.

        Returns:
            A `tf.data.Dataset` of `EncodedBatch` dictionaries, `labels` (B, T) among them, see
            `EncodedLog.dataset`.
        """
        counts, phases, seed = self._counts, self.phases, self.seed

        def plan() -> Iterator[tuple[int, int]]:
            return ((k, index) for k, count in enumerate(counts) for index in range(count))

        return passes(
            self.log.cache,
            plan,
            lambda k: phases[k].order(seed, shuffle=True),
            self.config.batch_size,
            count=self._ends[-1],
        )

    def loader(self, model: TrainableModel) -> Callable[[int | None], None]:
        """Loads the weights valid from a period into a model, None for those at the end.

        Raises:
            UserError: No model was fitted along the whole chain.
        """
        if not self.complete:
            raise UserError(
                "No model was fitted along this chain, so there are no snapshots.",
                received=f"snapshots of periods {self.snapshots}",
                fix="model.fit(chain.dataset(), callbacks=[chain])",
            )

        def load(period: int | None) -> None:
            name = "weights" if period is None else f"snapshots/{period}"
            read_weights(model, self.folder / name)

        return load

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras.

        Raises:
            UserError: The model is none of this package, or the chain was walked before.
        """
        if not isinstance(self.model, TrainableModel):
            raise UserError(
                "A PeriodChain keeps the weights of a model of this package.",
                received=f"a {type(self.model).__name__}",
            )
        if self._next or self.complete:
            raise UserError(
                "This chain was walked before: its snapshots would know later periods.",
                fix="make a new model and a new PeriodChain; `passes` gives more passes",
            )
        if int(tf.nest.flatten(self.model.optimizer)[0].iterations):
            _LOG.warning(
                "the model was trained before: snapshots of this chain may know later periods"
            )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras.

        Raises:
            UserError: It is not the first epoch.
        """
        if epoch:
            raise UserError(
                "A PeriodChain is one epoch: a second one would know later periods.",
                received="fit(..., epochs > 1)",
                fix="PeriodChain(log, passes=...) passes over each period more often",
            )

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras; sets the rates of a phase."""
        starts = [0, *self._ends[:-1]]
        if self._next < len(starts) and batch == starts[self._next]:
            self.model.scale_rates(self.phases[self._next].rate)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras; keeps the weights where a period ends.

        Raises:
            UserError: Keras made several steps at once and passed over the end of a period.
        """
        if self._next >= len(self._ends) or batch + 1 < self._ends[self._next]:
            return
        if batch + 1 > self._ends[self._next]:
            raise UserError(
                "Keras passed over the end of a period, whose weights are to be kept.",
                received="steps_per_execution > 1, or another data set than chain.dataset()",
                fix="compile(steps_per_execution=1) and fit(chain.dataset(), callbacks=[chain])",
            )
        snapshot = self.phases[self._next].snapshot
        if snapshot is not None:
            write_weights(self.model, self.folder / "snapshots" / str(snapshot))
        self._next += 1

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras; keeps the weights at the end."""
        if self._next == len(self._ends):
            write_weights(self.model, self.folder / "weights")
