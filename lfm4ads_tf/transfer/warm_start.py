"""Carries an upstream's weights over to a downstream model: warm start and isomorphic module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.interactions.columns import Carried
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from lfm4ads_tf.transfer.methods import Method

COPIED_TABLES = "copied_tables"
"""Learning-rate group of tables that start as the upstream's."""
EXTRA = "extra"
"""Label of columns that the upstream does not have."""


def warm_start(
    upstream: UpstreamModel,
    model: DownstreamModel,
    level: str,
    shares: Mapping[int, float],
) -> Carried:
    """Carries tables and layers up to a level over to a downstream with the upstream's sizes.

    Inputs that the upstream does not have, such as adapted representations, get weights of zero
    towards what it has; inputs that the downstream does not read are left out. So with `output`
    and the same features the model gives the upstream's logits of the scenarios in `shares`.

    Args:
        upstream: The trained upstream.
        model: The downstream, called once.
        level: See `WarmStart.level`; one of the upstream's.
        shares: Scenario index -> share in the mixture of its own heads; summing to 1.

    Returns:
        What was carried over beside the tables.
    """
    source, target = upstream.backbone, model.backbone
    transplant(source.embeddings, target.embeddings)
    carried = Carried()
    if level == "embeddings":
        return carried
    source.carry_towers(target, carried)
    block = upstream.block
    if level == "towers" or block is None:
        return carried
    extra = [(EXTRA, j) for j in range(model.extra_width)]
    names = block.layer_names
    upto = names if level == "output" else names[: names.index(level) + 1]
    origin = source.stream_labels(), [*target.stream_labels(), *extra]
    old, new = block.carry(target.block, origin, upto, carried)
    if level == "output":
        joined = model.joined_labels(list(new))
        upstream.heads.carry(model.heads, (old, joined), shares, carried)
    return carried


def start_module(
    upstream: UpstreamModel, module: IsomorphicModule, shares: Mapping[int, float]
) -> Carried:
    """Carries the context tables, the block and, where the module has one, the head over.

    Args:
        upstream: The trained upstream; it has an interaction block.
        module: The module, called once.
        shares: As for `warm_start`.
    """
    carried = Carried()
    if module.embeddings is not None:
        transplant(upstream.backbone.embeddings, module.embeddings)
    block = upstream.block
    if block is None:
        raise ValueError(f"A {type(upstream).__name__} has no interaction block to carry over.")
    labels = upstream.backbone.stream_labels()
    columns = block.carry(module.block, (labels, list(labels)), block.layer_names, carried)
    if module.heads is not None:
        upstream.heads.carry(module.heads, columns, shares, carried)
    return carried


def start(
    upstream: UpstreamModel,
    model: DownstreamModel,
    method: Method,
    shares: Mapping[int, float],
    rates: Mapping[str, float],
) -> dict[str, float]:
    """Carries over what a method says and freezes what it wants frozen.

    Args:
        upstream: The trained upstream.
        model: The downstream, called once, at its own initial weights.
        method: What is copied.
        shares: As for `warm_start`.
        rates: Part -> factor of the learning rate of its copied weights, see `Carried.rates`;
            `tables` for copied tables.

    Returns:
        Path of each carried variable, and group of the copied tables, -> factor of its learning
        rate, where there is one.
    """
    carried: list[tuple[Carried, bool]] = []
    if method.warm_start is not None:
        level = method.warm_start.level
        copied = warm_start(upstream, model, level, shares)
        carried.append((copied, method.warm_start.frozen))
    if model.module is not None and model.module.copied:
        copied = start_module(upstream, model.module, shares)
        carried.append((copied, bool(method.isomorphic and method.isomorphic.frozen)))
        if model.module.heads is not None:
            whole = method.warm_start is not None and method.warm_start.level == "output"
            # one of the two logits is the upstream's, the other one starts as its correction
            for variable in (model.module.heads if whole else model.heads).trainable_variables:
                variable.assign(np.zeros(variable.shape))
    by_path: dict[str, float] = {}
    for copied, frozen in carried:
        if frozen:
            copied.freeze()
        by_path |= copied.rates(rates)
    if "tables" in rates:
        by_path[COPIED_TABLES] = rates["tables"]
    return by_path
