"""The stored representations of a run, and which upstream they belong to."""

from __future__ import annotations

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.mmoe import MMoEConfig
from lfm4ads_tf.pipeline.run import Run, fingerprint
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.training.config import FittedTrainingConfig

_ONE = 1  # shard, as nearly every run had when the number counted


def open_store(run: Run, seed: int, trained_with: str | None = None) -> RepresentationStore:
    """The representations of a seed.

    Args:
        trained_with: Version that the model to be served was trained with, None without a model.

    Raises:
        UserError: They were not extracted, come from another upstream or data, or are of another
            version than the model's.
    """
    folder = run.representations(seed)
    if not (folder / "manifest.json").exists():
        raise UserError(
            f"There are no representations of seed {seed} in '{run.out}'.",
            fix="run the stage `extract` first, or `run` for all stages",
        )
    store = RepresentationStore(folder)
    expected = representations_version(run, seed)
    # earlier versions counted the number of shards
    earlier = _version(run, seed, run.config.upstream.embeddings.shards)
    if store.version not in (expected, earlier):
        raise UserError(
            "The stored representations come from another upstream.",
            received=f"version {store.version}, expected {expected}",
            fix=f"remove '{folder}' and run the stage `extract` again"
            if run.version == 1
            else f"put back what `refresh` made in '{folder}', or refresh the run anew",
        )
    store.require(trained_with)
    return store


def representations_version(run: Run, seed: int) -> str:
    """Name of the representations that a run's upstream gives, in whatever number of shards."""
    return _version(run, seed, _ONE)


def _version(run: Run, seed: int, shards: int) -> str:
    number = "" if run.version == 1 else f"v{run.version}-"
    return f"{number}seed_{seed}-{upstream_fingerprint(run, seed, shards)}"


def upstream_fingerprint(run: Run, seed: int, shards: int = _ONE) -> str:
    """Digest of what an upstream and its representations are made of.

    The tables' number of shards changes neither, so it is that of `shards` whatever the run's.
    """
    upstream = run.config.upstream.model_dump(mode="json")
    upstream["embeddings"]["shards"] = shards
    upstream.setdefault("mmoe", MMoEConfig().model_dump(mode="json"))  # as of the first runs
    representations = run.config.representations.model_dump(mode="json")
    training, default = upstream["training"], FittedTrainingConfig()
    del training["auto"]  # what it chose counts, not that it did
    del training["keep_checkpoints"]
    # newer than the first runs
    for key in ("final_passes", "final_decay", "loss", "loss_options"):
        if training[key] == getattr(default, key):
            del training[key]
    if not representations["aggregation_options"]:  # newer than the first runs
        del representations["aggregation_options"]
    return fingerprint([run.cache.manifest["fingerprint"], seed, upstream, representations])
