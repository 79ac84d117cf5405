"""The configurations that a sweep compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.sweep_options import SweepOptions
from lfm4ads_tf.representations.names import cross_name
from lfm4ads_tf.transfer.methods import Method

BASELINE = "none"
SUM = "feature/linear/UR"
_ISOMORPHIC = "module/isomorphic"


@dataclass(frozen=True)
class SweepCandidate:
    """One configuration.

    Attributes:
        method: The transfer method.
        level: `none`, `feature`, `module`, or `combination` of several parts.
        adapter: Of the feature level.
        side: Whose CR the adapter reads: `user`, `item` or `both`.
        layer: The CR's layer, or the last one that a warm start copies; None if it has no layer.
    """

    method: Method
    level: str
    adapter: str | None = None
    side: str | None = None
    layer: str | None = None


def sweep_candidates(
    run: Run, options: SweepOptions, others: Sequence[str] = ()
) -> list[SweepCandidate]:
    """The grid of layers, granularities and adapters, behind its baselines.

    Args:
        run: Spec and configuration are read, nothing else.
        options: The axes of the grid.
        others: Further methods to compare.

    Returns:
        `none`, SUM and the isomorphic module; the feature level by adapter, side and layer; warm
        starts by layer; the further methods.

    Raises:
        UserError: A name is unknown, or the configuration cannot do what a method says.
    """
    options.check_task(run.spec.task_names)
    adapters, sides, levels = options.chosen_adapters, options.chosen_sides, options.chosen_levels
    layers = run.config.upstream.layer_names(run.spec.task_names)
    kept = run.config.representations.layers
    stored = [n for n in layers if kept is None or n in kept] if "feature" in levels else []
    starts = _starts(run) if "module" in levels else {}
    known = [n for n in ("embeddings", *layers, "output") if n in stored or n in starts]
    wanted = options.chosen_layers(known)
    candidates = [
        SweepCandidate(read_method(run, BASELINE), "none"),
        SweepCandidate(read_method(run, SUM), "feature", adapter="linear"),
    ]
    if "module" in levels and run.config.upstream.block is not None:
        candidates.append(SweepCandidate(read_method(run, _ISOMORPHIC), "module"))
    for adapter in adapters:
        for side in sides:
            for layer in (n for n in known if n in stored and n in wanted):
                both = ("user", "item") if side == "both" else (side,)
                sources = "+".join(cross_name(s, layer) for s in both)
                method = read_method(run, f"feature/{adapter}/{sources}")
                candidates.append(SweepCandidate(method, "feature", adapter, side, layer))
    for layer in (n for n in known if n in starts and n in wanted):
        method = read_method(run, f"module/warm_start/{starts[layer]}")
        candidates.append(SweepCandidate(method, "module", layer=layer))
    names = {c.method.name for c in candidates}
    for name in dict.fromkeys(others):
        if name not in names and name != "upstream":  # which is no downstream model
            candidates.append(_other(read_method(run, name)))
    return candidates


def _starts(run: Run) -> dict[str, str]:
    """Layer -> level of the warm start that copies up to it."""
    levels = run.config.upstream.warm_start_levels(run.spec.task_names)
    return {layer: level for level, layer in levels.items()}


def _other(method: Method) -> SweepCandidate:
    """A method that is not on the grid."""
    modules = (method.warm_start is not None) + (method.isomorphic is not None)
    if modules + len(method.parts) != 1:
        return SweepCandidate(method, "combination")
    if modules:
        return SweepCandidate(method, "module")
    return SweepCandidate(method, "feature", adapter=method.parts[0][0])
