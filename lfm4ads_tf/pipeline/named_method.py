"""A run's transfer methods by the names that configurations and results give them."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.models.spec_reads import block_reads
from lfm4ads_tf.pipeline.full import FULL, full_combination
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.started_network import module_network, own_network
from lfm4ads_tf.representations.names import representation_names, side_of
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.transfer.isomorphic import check_block
from lfm4ads_tf.transfer.methods import Method, adapter_options, parse_method


def read_method(run: Run, name: str) -> Method:
    """A method of a run by its name, see `configured_method`."""
    return configured_method(run.config, block_reads(run.spec), name)


def configured_method(config: RunConfig, log: BlockReads, name: str) -> Method:
    """A method by its name.

    Args:
        config: The run configuration.
        log: All that the log has to read, and its tasks.
        name: As in results.

    Raises:
        UserError: The name is unknown, or the configuration cannot do what it says.
    """
    upstream, tasks = config.upstream, log.tasks
    layers = upstream.layer_names(tasks)
    levels = list(upstream.warm_start_levels(tasks))
    method = parse_method(
        name,
        layers,
        full=full_combination(config, tasks) if name == FULL else None,
        representations=representation_names(config.representations, layers),
        levels=levels,
    )
    for kind, sources in method.parts:
        sides = {source: side_of(source) for source in sources}
        ADAPTERS[kind].check(sides, adapter_options(config.downstream, kind), upstream)
    if method.isomorphic is not None:
        _check_module(config, name, levels)
    if method.warm_start is not None or method.isomorphic is not None:
        _check_rates(config, levels)
    _check_frozen(method)
    own_network(config, log, method)  # refuses inputs that do not fit, before anything is trained
    if method.isomorphic is not None:
        module_network(config, log, method)
    return method


def _check_module(config: RunConfig, name: str, levels: Sequence[str]) -> None:
    """The isomorphic module needs a mix tower to be isomorphic to, and one of its layers."""
    if config.upstream.block is None:
        raise UserError(
            f"The upstream model '{config.upstream.model}' has no mix tower.",
            received=name,
            fix=f"use module/warm_start/{levels[-1]}, or an upstream with an interaction block, "
            "such as foundation with block.sets: joined",
        )
    check_block(config.upstream.block)
    layer, known = config.downstream.isomorphic_layer, levels[1:]
    if layer not in known:
        raise UserError(
            f"downstream.isomorphic_layer names the unknown layer '{layer}'."
            + nearest(layer, known),
            fix=f"use one of {', '.join(known)}",
        )


def _check_rates(config: RunConfig, levels: Sequence[str]) -> None:
    layers = [n for n in levels if n not in ("embeddings", "towers", "output")]
    known = ["tables", "towers", "block", *layers, "gates", "heads"]
    for key in config.downstream.warm_start_rates:
        if key not in known:
            raise UserError(
                f"downstream.warm_start_rates names the unknown part '{key}'."
                + nearest(key, known),
                fix=f"use some of {', '.join(known)}",
            )


def _check_frozen(method: Method) -> None:
    """Frozen layers cannot learn to read inputs that the upstream did not have."""
    start = method.warm_start
    if start is None or not start.frozen or start.level in ("embeddings", "towers"):
        return
    if method.widens or (method.isomorphic is not None and start.level == "output"):
        raise UserError(
            "Frozen layers cannot learn to read what is joined to their input.",
            received=method.resolved,
            fix="leave out +frozen, or use a gate in place of what is joined",
        )
