"""Models of a run, with their variables made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, ServedStorage, TableOptions
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.models.example_batch import example_batch
from lfm4ads_tf.models.spec_reads import layout_reads
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline.started_network import module_network, own_network
from lfm4ads_tf.seeding import derive
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from lfm4ads_tf.transfer.methods import Method
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel
from lfm4ads_tf.transfer.warm_start import COPIED_TABLES


def upstream(
    layout: FeatureLayout,
    config: RunConfig,
    seed: int,
    *,
    shards: int | None = None,
    storage: ServedStorage = "float32",
) -> UpstreamModel:
    """The configured upstream of a seed, at its initial weights.

    Args:
        shards: Number of shards of tables for inference, see `EmbeddingsConfig.served`; the
            tables as they are trained when absent.
        storage: Type of the tables for inference.
    """
    section = config.upstream
    embeddings = section.embeddings
    if shards is not None:
        embeddings = embeddings.served(shards, storage)
    model_seed = derive(seed, "upstream")
    model: UpstreamModel = section.model_class.create(layout, section, embeddings, seed=model_seed)
    model.task_loss = TaskLoss.of(section.training, layout.tasks)
    model(example_batch(layout))
    return model


def downstream(
    layout: FeatureLayout,
    config: RunConfig,
    method: Method,
    dims: Mapping[str, int],
    seed: int,
    *,
    shards: int | None = None,
    storage: ServedStorage = "float32",
) -> DownstreamModel:
    """The downstream of a seed and method, at its initial weights.

    All methods of a seed start from the same weights where they have the same layers.

    Args:
        dims: Widths of the stored representations.
        shards, storage: As for `upstream`.
    """
    section, theirs = config.downstream, config.upstream
    model_seed = derive(seed, "downstream")
    read = layout.without(section.omit)
    log = layout_reads(layout)
    network, embeddings = own_network(config, log, method), section.embeddings
    of_module = layout if section.module_inputs == "upstream" else read
    if method.warm_start is not None:
        read = of_module
        embeddings = theirs.model_class.tables(theirs, layout)
        embeddings = _copied(read, embeddings, method.warm_start.frozen)
    if shards is not None:
        embeddings = embeddings.served(shards, storage)
    options = (
        section
        if section.token_dim
        else section.model_copy(update={"token_dim": embeddings.dim * embeddings.sets})
    )
    adapters = method.adapters(options, model_seed)
    for adapter in adapters:
        adapter.check_widths(dims)
    model = DownstreamModel(
        read,
        network,
        embeddings,
        adapters=adapters,
        module=_module(layout, of_module, config, method, model_seed, shards, storage),
        task_loss=TaskLoss.of(section.training, layout.tasks),
        adapter_l2=section.adapter_l2,
        seed=model_seed,
    )
    model(example_batch(layout, {name: dims[name] for name in method.sources}))
    return model


def _module(
    layout: FeatureLayout,
    read: FeatureLayout,
    config: RunConfig,
    method: Method,
    seed: int,
    shards: int | None,
    storage: ServedStorage,
) -> IsomorphicModule | None:
    """The isomorphic module of a method, None if it has none."""
    if method.isomorphic is None:
        return None
    section, theirs = config.downstream, config.upstream
    embeddings = theirs.model_class.tables(theirs, layout)
    fresh, frozen = method.isomorphic.fresh, method.isomorphic.frozen
    if not fresh:
        embeddings = _copied(read, embeddings, frozen)
    if shards is not None:
        embeddings = embeddings.served(shards, storage)
    return IsomorphicModule(
        read,
        layout,
        module_network(config, layout_reads(layout), method),
        embeddings,
        layer=section.isomorphic_layer,
        gate=section.isomorphic_gate,
        head=section.isomorphic_head,
        copied=not fresh,
        seed=seed,
    )


def _copied(layout: FeatureLayout, config: EmbeddingsConfig, frozen: bool) -> EmbeddingsConfig:
    """Tables that copied rows go into: a learning-rate group of their own, or frozen."""
    tables = {
        t.name: config.tables.get(t.name, TableOptions()).model_copy(
            update={"trainable": not frozen, "group": COPIED_TABLES, "pretrained": None}
        )
        for t in layout.tables
    }
    return config.model_copy(update={"tables": tables})


def retriever(
    layout: FeatureLayout,
    config: RunConfig,
    method: RetrievalMethod,
    dims: Mapping[str, int],
    item_counts: np.ndarray,
    task: int,
    seed: int,
) -> TwoVectorModel:
    """The retrieval model of a seed and method, at its initial weights.

    Args:
        dims: Widths of the stored representations.
        item_counts: Training positives per item code, (items,).
        task: Column of the labels.
    """
    model = method.build(
        layout,
        config.retrieval,
        dims,
        item_counts=item_counts,
        task=task,
        seed=derive(seed, "retrieval"),
    )
    model(example_batch(layout, {name: dims[name] for name in method.sources}))
    return model
