"""Networks of downstream models and modules, whose inputs may be others than the upstream's."""

from __future__ import annotations

from dataclasses import replace

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block import reads_towers, refitted_block, settled_block
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.transfer.isomorphic import module_reads
from lfm4ads_tf.transfer.methods import Method


def own_network(config: RunConfig, log: BlockReads, method: Method) -> NetworkConfig:
    """Towers and block of a method's downstream; of a warm start the upstream's.

    Args:
        config: The run configuration.
        log: All that the log has to read.
        method: The method.

    Raises:
        UserError: The block cannot have the inputs that the method gives it.
    """
    section, start = config.downstream, method.warm_start
    network = section.network if start is None else _upstream_network(config)
    stream = reads_towers(network.block)
    stored = 0
    for kind, sources in method.parts:
        adapter = ADAPTERS[kind]
        if adapter.gates_stream and not stream:
            raise UserError(
                f"The adapter '{kind}' is a gate of the stream, which no layer of the downstream's "
                "interaction block reads.",
                received=f"{method.resolved}, a {network.block.structure} block of "
                + ", ".join(layer.key for layer in network.block.layers),
                fix=f"use feature/gate_fields/{'+'.join(sources)}, or add a layer that reads the "
                "stream, such as {type: cross} in a parallel block",
            )
        if adapter.widens and (adapter.as_fields or not stream):
            stored += adapter.joined(sources)
    if start is None:
        own = replace(log.without(section.omit), sets=section.embeddings.sets, stored=stored)
        settled_block(network.block, own)  # refuses what does not fit
        return network
    before = _of_upstream(config, log)
    reads = replace(_read(config, before), stored=stored)
    levels = config.upstream.warm_start_levels(log.tasks)
    return _refitted(network, before, reads, _upto(list(levels), start.level), method.resolved)


def module_network(config: RunConfig, log: BlockReads, method: Method) -> NetworkConfig:
    """Towers and block of a method's isomorphic module.

    Args:
        config: The run configuration.
        log: All that the log has to read.
        method: The method.

    Raises:
        UserError: What stands in place of the upstream's inputs does not fit the block.
    """
    network, before = _upstream_network(config), _of_upstream(config, log)
    reads = module_reads(before, _read(config, before), network)
    levels = list(config.upstream.warm_start_levels(log.tasks))
    return _refitted(network, before, reads, levels, method.resolved)


def _refitted(
    network: NetworkConfig, before: BlockReads, reads: BlockReads, names: list[str], whose: str
) -> NetworkConfig:
    block = refitted_block(network.block, before, reads, names, whose)
    return network.model_copy(update={"block": block})


def _upto(levels: list[str], level: str) -> list[str]:
    """Levels that a warm start copies."""
    return levels[: levels.index(level) + 1]


def _of_upstream(config: RunConfig, log: BlockReads) -> BlockReads:
    """What the upstream's block reads."""
    return replace(log, sets=config.upstream.embeddings.sets)


def _read(config: RunConfig, before: BlockReads) -> BlockReads:
    """What a module that was taken from the upstream reads."""
    section = config.downstream
    return before if section.module_inputs == "upstream" else before.without(section.omit)


def _upstream_network(config: RunConfig) -> NetworkConfig:
    """The upstream's towers, and its block where it has one."""
    theirs = config.upstream.network
    if config.upstream.block is not None:
        return theirs.model_copy(update={"block": config.upstream.block})
    towers = {"user_tower": theirs.user_tower, "item_tower": theirs.item_tower}
    return config.downstream.network.model_copy(update=towers)
