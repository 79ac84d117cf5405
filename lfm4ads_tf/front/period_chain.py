"""Training from period to period, with a snapshot of what was known before each."""

from __future__ import annotations

import json
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
from lfm4ads_tf.files import write_json
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.models.data_callback import DataCallback
from lfm4ads_tf.models.trainable_model import TrainableModel
from lfm4ads_tf.training.checkpoints import read_weights, write_weights
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import Phase, chain
from lfm4ads_tf.tuning.search import first_batch_size

_ABOUT = "chain.json"  # written last
_CHAIN = "period_chain"  # attribute of a data set: the chain that it is of


class PeriodChain(DataCallback):
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
            chain. A folder in which such a chain was walked to its end is opened again.

    Raises:
        UserError: The folder holds something else.

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
        if batch_size is not None and batch_size < 1:
            raise UserError("A batch has at least one row.", received=f"batch_size={batch_size}")
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
        self._shown = False  # whether `fit` has shown that it reads this chain's batches
        if self.folder.exists() and any(self.folder.iterdir()) and not self._is_here():
            raise UserError(
                "The folder of the snapshots holds something else than this chain.",
                received=str(folder),
                fix="give another one, or the log and settings that its chain was walked with",
            )

    @property
    def snapshots(self) -> list[int]:
        """Periods from which the snapshots that are kept are valid."""
        kept = (self.folder / "snapshots").glob("*")
        return sorted(int(path.name) for path in kept if path.name.isdigit())

    @property
    def complete(self) -> bool:
        """Whether a model was fitted along the whole chain."""
        return (self.folder / _ABOUT).exists()

    def require(self, upstream: TrainableModel, log: EncodedLog) -> None:
        """Refuses a model that was not fitted along the chain, and another log.

        Raises:
            UserError: The model is of another configuration or was trained further, the log is of
                other data, or no model was fitted along the whole chain.
        """
        if not self.complete:
            raise UserError(
                "No model was fitted along this chain, so there are no snapshots.",
                received=f"snapshots of periods {self.snapshots}",
                fix="model.fit(chain.dataset(), callbacks=[chain])",
            )
        about = json.loads((self.folder / _ABOUT).read_text("utf-8"))
        if about["data"] != log.fingerprint:
            raise UserError(
                "The chain was walked over other data than the log's.",
                received=f"data {about['data']}, not {log.fingerprint}",
                fix="give the log that the chain was made of",
            )
        if about["model"] != _as_json(upstream.get_config()):
            raise UserError(
                "The model is not the one that was fitted along the chain.",
                received=f"a {type(upstream).__name__} of another configuration or seed",
                fix="give the fitted model, or one made of the same arguments",
            )
        if upstream.fitted and _steps(upstream) not in (None, about["steps"]):
            raise UserError(
                "The model was trained after the chain: its snapshots are not of this model.",
                received=f"{_steps(upstream)} steps, {about['steps']} at the end of the chain",
                fix="extract before training goes on, or walk a new chain with a new model",
            )

    def dataset(self) -> tf.data.Dataset:
        """The batches of all phases; one iteration is the whole chain.

        Returns:
            A `tf.data.Dataset` of `EncodedBatch` dictionaries, `labels` (B, T) among them, see
            `EncodedLog.dataset`.
        """
        counts, phases, seed = self._counts, self.phases, self.seed

        def plan() -> Iterator[tuple[int, int]]:
            return ((k, index) for k, count in enumerate(counts) for index in range(count))

        data = passes(
            self.log.cache,
            plan,
            lambda k: phases[k].order(seed, shuffle=True),
            self.config.batch_size,
            count=self._ends[-1],
        )
        vars(data)[_CHAIN] = self
        return data

    def loader(self, model: TrainableModel) -> Callable[[int | None], None]:
        """Loads the weights valid from a period into a model, None for those at the end.

        Args:
            model: The model, or one of the same arguments, see `require`.
        """

        def load(period: int | None) -> None:
            name = "weights" if period is None else f"snapshots/{period}"
            read_weights(model, self.folder / name)

        return load

    def on_data(self, data: tf.data.Dataset, model: tf_keras.Model) -> None:
        """See `DataCallback`.

        Raises:
            UserError: The data set is not the chain's, or the chain or the model was trained
                before.
        """
        if vars(data).get(_CHAIN) is not self:
            raise UserError(
                "A PeriodChain keeps snapshots of a model that is fitted on its own batches.",
                received="fit with another data set and this callback",
                fix="fit(chain.dataset(), callbacks=[chain])",
            )
        if self._next or self.complete:
            raise UserError(
                "This chain was walked before: its snapshots would know later periods.",
                fix="make a new model and a new PeriodChain; `passes` gives more passes",
            )
        if model.fitted:
            raise UserError(
                "The model was trained before: snapshots along the chain could know later periods.",
                received=f"a {type(model).__name__} that was fitted",
                fix="make the model anew",
            )
        self._shown = True

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras.

        Raises:
            UserError: The model is none of this package.
        """
        if not self._shown:
            raise UserError(
                "A PeriodChain keeps the weights of a model of this package.",
                received=f"a {type(self.model).__name__}",
            )
        for optimizer in tf.nest.flatten(self.model.optimizer):
            optimizer.take_rates()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras.

        Raises:
            UserError: It is not the first epoch.
        """
        if epoch:
            raise UserError(
                "A PeriodChain is one epoch: a second one would know later periods.",
                received=f"epoch {epoch + 1}",
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
                received="steps_per_execution > 1",
                fix="compile(steps_per_execution=1)",
            )
        snapshot = self.phases[self._next].snapshot
        if snapshot is not None:
            write_weights(self.model, self.folder / "snapshots" / str(snapshot))
        self._next += 1

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """See Keras; keeps the weights at the end."""
        self.model.scale_rates(1.0)
        if self._next == len(self._ends):
            write_weights(self.model, self.folder / "weights")
            write_json(
                self.folder / _ABOUT,
                {
                    **self._settings(),
                    "model": _as_json(self.model.get_config()),
                    "steps": _steps(self.model),
                },
            )

    def _settings(self) -> dict[str, Any]:
        """What the snapshots are of, the model apart."""
        settings = self.config.model_dump(mode="json", exclude={"keep_checkpoints"})
        return {"data": self.log.fingerprint, "seed": self.seed, "settings": settings}

    def _is_here(self) -> bool:
        """Whether this chain was walked to its end in the folder."""
        if not self.complete:
            return False
        about = json.loads((self.folder / _ABOUT).read_text("utf-8"))
        return all(about.get(key) == value for key, value in self._settings().items())


def _steps(model: TrainableModel) -> int | None:
    """Steps of a compiled model; None where it is not compiled."""
    optimizers = tf.nest.flatten(getattr(model, "optimizer", None))
    return int(optimizers[0].iterations) if optimizers and optimizers[0] is not None else None


def _as_json(config: dict[str, Any]) -> Any:
    """A configuration as a file gives it back."""
    return json.loads(json.dumps(config))
