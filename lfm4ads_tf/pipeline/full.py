"""What the method name `full` stands for where the configuration does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lfm4ads_tf.config import Resolved, RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.interactions.block import reads_towers
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.representations.names import cross_name, representation_names

FULL = "full"
_LEVEL = "output"
WARM_START = f"module/warm_start/{_LEVEL}"


def full_combination(config: RunConfig, tasks: Sequence[str]) -> str:
    """`downstream.full`, or what follows from the upstream where it is not given.

        feature/gate/UR+IR+CR_user@L+CR_item@L & module/warm_start/output

    Where no layer reads the stream, the gate is `gate_fields`. L is what the upstream model hands
    over, see `UpstreamModel.handed_over`. The warm start is part of it where the upstream has that
    level, and the downstream has the upstream's sizes and reads all that the upstream does.

    Args:
        config: The run configuration.
        tasks: The spec's tasks, in order.

    Raises:
        UserError: A task's name cannot be part of a layer's name.
    """
    if config.downstream.full is not None:
        return config.downstream.full
    upstream = config.upstream
    layers = upstream.layer_names(tasks)
    names = representation_names(config.representations, layers)
    stored = [layer for layer in layers if cross_name("user", layer) in names]
    handed_over = upstream.model_class.handed_over(upstream, tasks, stored)
    crs = [cross_name(side, layer) for side in ("user", "item") for layer in handed_over]
    starts = _LEVEL in upstream.warm_start_levels(tasks) and same_sizes(config)
    # of one structure where it starts as the upstream
    kind = "gate" if reads_towers(config.downstream.network.block) else "gate_fields"
    gate = f"feature/{kind}/{'+'.join(['UR', 'IR', *crs])}"
    return f"{gate} & {WARM_START}" if starts else gate


def with_full(resolved: Resolved) -> Resolved:
    """The same documents with `downstream.full` written out where `full` is asked for."""
    config = resolved.config
    if FULL not in (*config.downstream.methods, config.export.method):
        return resolved
    full = full_combination(config, resolved.spec.task_names)
    downstream = config.downstream.model_copy(update={"full": full})
    return resolved.model_copy(
        update={"config": config.model_copy(update={"downstream": downstream})}
    )


def same_sizes(config: RunConfig) -> bool:
    """Whether a downstream's own towers, block, tables and inputs have the upstream's shapes.

    A warm start builds the downstream with the upstream's sizes whatever its own are; where they
    differ it would be another model than `none`, which no default should decide.
    """
    upstream, downstream = config.upstream, config.downstream
    block = upstream.block
    return (
        block is not None
        and (not downstream.omit or downstream.module_inputs == "upstream")
        and _network(upstream.network.model_copy(update={"block": block}))
        == _network(downstream.network)
        and _tables(upstream.embeddings) == _tables(downstream.embeddings)
    )


def _network(config: NetworkConfig) -> dict[str, Any]:
    """What shapes a network's weights and what they mean; the heads are made per model."""
    options = config.model_dump(exclude={"shared_head"})
    for layer in options["block"]["layers"]:
        layer.pop("dropout", None)
    if config.block.structure != "gated":
        del options["block"]["mix_dim"]
    if config.block.sets == "joined":
        for key in ("set_dim", "shared_units"):
            options["block"].pop(key, None)
    return options


def _tables(config: EmbeddingsConfig) -> dict[str, Any]:
    """What shapes the embedding tables."""
    apart = {
        name: (options.dim, None if options.hashing is None else options.hashing.model_dump())
        for name, options in config.tables.items()
        if options.dim is not None or options.hashing is not None
    }
    return {"dim": config.dim, "sets": config.sets, "tables": apart}
