"""Learning-rate groups of the downstream models, whose layers differ from method to method."""

from __future__ import annotations

from functools import lru_cache

from lfm4ads_tf.optim.model_optimizers import unmatched_rates
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.downstream_plan import run_methods
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.transfer.downstream import DownstreamModel


def of_the_model(
    run: Run, training: TrainingConfig, model: DownstreamModel, seed: int
) -> TrainingConfig:
    """A training without the groups that other methods of the run have and a model has not.

    `adapter` moves nothing in `none` and is right all the same. A group that no method of the run
    has stays, so that the optimizer refuses it.

    Args:
        run: The run.
        training: How the model is trained.
        model: The model.
        seed: Seed of the stored representations, whose widths the other models need.
    """
    lost = unmatched_rates(training.optimizer, model, model.all_embeddings)
    elsewhere = _of_other_methods(run, tuple(lost), seed) if lost else ()
    if not elsewhere:
        return training
    kept = {k: f for k, f in training.optimizer.group_rates.items() if k not in elsewhere}
    optimizer = training.optimizer.model_copy(update={"group_rates": kept})
    return training.model_copy(update={"optimizer": optimizer})


@lru_cache(maxsize=4)  # building the models again for every scenario would take long
def _of_other_methods(run: Run, keys: tuple[str, ...], seed: int) -> frozenset[str]:
    """The keys that match something in a model of one of the run's methods.

    Where a method's representations are not there yet, its model cannot be made: it may have all.
    """
    lost = set(keys)
    config = run.config
    optimizer = config.downstream.training.optimizer
    asked = optimizer.model_copy(update={"group_rates": dict.fromkeys(keys, 1.0)})
    for method in run_methods(run):
        if method.sources and not run.representations(seed).exists():
            return frozenset(keys)
        dims = open_store(run, seed).dims if method.sources else {}
        model = build.downstream(run.cache.layout, config, method, dims, seed)
        lost &= set(unmatched_rates(asked, model, model.all_embeddings))
        if not lost:
            break
    return frozenset(keys) - lost
