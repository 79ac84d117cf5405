"""Copies an upstream's weights into a downstream model: warm start and isomorphic module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tf_keras

from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.interactions.config import CrossConfig
from lfm4ads_tf.interactions.cross import Cross
from lfm4ads_tf.interactions.dnn import DNN
from lfm4ads_tf.interactions.fm import FM
from lfm4ads_tf.interactions.task_gates import TaskGates
from lfm4ads_tf.models.heads import ScenarioTaskHeads
from lfm4ads_tf.models.task_towers import TaskTowers
from lfm4ads_tf.models.tower import Tower
from lfm4ads_tf.models.two_towers import Label
from lfm4ads_tf.models.upstream import Upstream
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.module.isomorphic import IsomorphicModule

EXTRA = "extra"
"""Label of columns that the upstream does not have."""

Labels = tuple[list[Label], list[Label]]
"""Labels of an activation's columns, in the source and in the target."""


@dataclass
class Copied:
    """What was copied.

    Attributes:
        layers: Part (`towers`, an interaction layer, `heads`) -> layers that hold copied weights.
    """

    layers: dict[str, list[tf_keras.layers.Layer]] = field(default_factory=dict)

    def add(self, part: str, layer: tf_keras.layers.Layer) -> None:
        """Notes a layer."""
        self.layers.setdefault(part, []).append(layer)

    def freeze(self) -> None:
        """Takes the copied weights outside of tables out of training."""
        for layers in self.layers.values():
            for layer in layers:
                layer.trainable = False

    def rates(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Path of each copied variable -> factor of its learning rate, where there is one."""
        found: dict[str, float] = {}
        for part, layers in self.layers.items():
            of_block = rates.get("block") if part not in ("towers", "heads") else None
            rate = rates.get(part, of_block)
            if rate is not None:
                for layer in layers:
                    found |= {v.name.split(":")[0]: rate for v in layer.trainable_variables}
        return found


def warm_start(
    upstream: Upstream,
    model: DownstreamModel,
    level: str,
    shares: Mapping[int, float],
) -> Copied:
    """Copies tables and layers up to a level into a downstream with the upstream's sizes.

    Inputs that the upstream does not have, such as adapted representations, get weights of zero
    towards what it has; inputs that the downstream does not read are left out. So with `output`
    and the same features the model gives the upstream's logits of the scenarios in `shares`.

    Args:
        upstream: The trained upstream.
        model: The downstream, called once.
        level: See `WarmStart.level`.
        shares: Scenario index -> share in the mixture of its own heads; summing to 1.

    Returns:
        What was copied beside the tables.
    """
    source, target = upstream.backbone, model.backbone
    transplant(source.embeddings, target.embeddings)
    copied = Copied()
    if level == "embeddings":
        return copied
    for owner in ("user", "item"):
        towers = (getattr(source, f"{owner}_tower"), getattr(target, f"{owner}_tower"))
        _copy_tower(*towers, source.input_labels(owner), target.input_labels(owner), copied)
    if level == "towers":
        return copied
    block: InteractionBlock = source.block  # with branches the ads' one
    extra = [(EXTRA, j) for j in range(model.extra_width)]
    names = block.layer_names
    upto = names if level == "output" else names[: names.index(level) + 1]
    old, new = copy_block(
        block,
        target.block,
        source.stream_labels(),
        [*target.stream_labels(), *extra],
        copied,
        upto,
    )
    if level == "output":
        joined = model.joined_labels(list(new))
        copy_heads(upstream.heads, model.heads, old, joined, shares, copied)
    return copied


def start_module(
    upstream: Upstream, module: IsomorphicModule, shares: Mapping[int, float]
) -> Copied:
    """Copies the context tables, the block and, where the module has one, the head.

    Args:
        upstream: The trained upstream.
        module: The module, called once.
        shares: As for `warm_start`.
    """
    copied = Copied()
    if module.embeddings is not None:
        transplant(upstream.backbone.embeddings, module.embeddings)
    block: InteractionBlock = upstream.backbone.block
    labels = upstream.backbone.stream_labels()
    old, new = copy_block(block, module.block, labels, labels, copied, block.layer_names)
    if module.heads is not None:
        copy_heads(upstream.heads, module.heads, old, new, shares, copied)
    return copied


def copy_block(
    source: InteractionBlock,
    target: InteractionBlock,
    old: Sequence[Label],
    new: Sequence[Label],
    copied: Copied,
    names: Sequence[str],
) -> Labels:
    """Copies the layers called `names` of a block of the same configuration.

    Args:
        old, new: Labels of the columns of x_0, in the source and in the target.

    Returns:
        Labels of both outputs.
    """
    structure = source.config.structure
    outputs: list[Labels] = []
    origin = stream = deep = (list(old), list(new))
    for a, b in zip(_layers(source), _layers(target), strict=True):
        if isinstance(a, FM):
            if a.name in names:
                _copy_fm(a, b, copied)
            result = _both("fm", a.dim)
            deep = (deep[0] + result[0], deep[1] + result[1])
            following = deep
        elif isinstance(a, DNN):
            result = deep if structure == "parallel" else stream
            for one, other in zip(a.layers, b.layers, strict=True):
                made = _both(one.name, one.units)
                if one.name in names:
                    _copy_dense(one, other, result, made)
                    copied.add(one.name, other)
                result = made
            following = result
        else:
            result = following = stream
            for one, other in zip(a, b, strict=True):
                if one.name in names:
                    _copy_cross(one, other, stream, copied)
        outputs.append(result)
        stream = following if structure == "stacked" else stream
    if source.gates is None:
        if structure == "stacked" or not outputs:
            return stream
        return [x for o in outputs for x in o[0]], [x for o in outputs for x in o[1]]
    mixtures = [f"mix_{task}" for task in source.tasks]
    if mixtures[-1] in names:
        _copy_gates(source.gates, target.gates, origin, outputs, copied)
    width = source.config.mix_dim
    mixed = [(name, j) for name in mixtures for j in range(width)]
    return mixed, mixed


def copy_heads(
    source: ScenarioTaskHeads | TaskTowers,
    target: Any,
    old: list[Label],
    new: list[Label],
    shares: Mapping[int, float],
    copied: Copied,
) -> None:
    """Makes the single head of a downstream from the shared and the scenarios' own weights."""
    if isinstance(source, TaskTowers):
        _copy_task_heads(source, target, old, new, shares, copied)
        return
    kernel = np.zeros((len(old), source.tasks), np.float64)
    bias = np.zeros(source.tasks, np.float64)
    if source.shared is not None:
        kernel += source.shared.kernel.numpy()
        bias += source.shared.bias.numpy()
    if source.own is not None:
        shape = (-1, source.scenarios, source.tasks)
        kernels = source.own.kernel.numpy().reshape(shape)  # (d, S, T)
        biases = source.own.bias.numpy().reshape(shape[1:])  # (S, T)
        for scenario, share in shares.items():
            kernel += share * kernels[:, scenario]
            bias += share * biases[scenario]
    tasks = [("task", t) for t in range(source.tasks)]
    _place(kernel.astype(np.float32), target.shared.kernel, (old, new), (tasks, tasks))
    target.shared.bias.assign(bias.astype(np.float32))
    copied.add("heads", target.shared)


def _copy_task_heads(
    source: TaskTowers,
    target: TaskTowers,
    old: list[Label],
    new: list[Label],
    shares: Mapping[int, float],
    copied: Copied,
) -> None:
    """`copy_heads` where each task reads its own mixture; labels are (B, T h), task by task."""
    kernels, biases = source.logit_kernel.numpy(), source.logit_bias.numpy()  # (T, u, 1 + S)
    first = int(source.shared)
    weights = np.zeros((kernels.shape[-1], 1), np.float32)
    weights[:first] = 1.0
    for scenario, share in shares.items():
        weights[first + scenario] += share
    kernel, bias = kernels @ weights, biases @ weights  # (T, u, 1), (T, 1, 1)
    values = np.array(target.logit_kernel)  # (T, u', 1)
    tasks, width, wider = source.tasks, kernel.shape[1], values.shape[1]
    for t in range(tasks):
        labels = (old[t * width : (t + 1) * width], new[t * wider : (t + 1) * wider])
        before, behind = _common(labels)
        values[t] = 0.0
        values[t][behind] = kernel[t][before]
    target.logit_kernel.assign(values)
    target.logit_bias.assign(bias)
    copied.add("heads", target)


def _copy_gates(
    source: TaskGates,
    target: Any,
    origin: Labels,
    outputs: Sequence[Labels],
    copied: Copied,
) -> None:
    every = _both("gate", int(source.kernel.shape[-1]))
    _place(source.kernel, target.kernel, origin, every)
    pairs = zip(source.projections, target.projections, outputs, strict=True)
    for one, other, labels in pairs:
        _copy_dense(one, other, labels, _both(one.name, one.units))
    copied.add("gates", target)


def _layers(block: InteractionBlock) -> list[Any]:
    """The block's layers in order: FM, DNN, or a list of Cross."""
    found = {m.name: m for m in block.submodules if isinstance(m, (FM, Cross, DNN))}
    layers: list[Any] = []
    for layer in block.config.layers:
        if isinstance(layer, CrossConfig):
            layers.append([found[f"cross_{k}"] for k in range(1, layer.depth + 1)])
        else:
            layers.append(found[layer.type])
    return layers


def _both(name: str, width: int) -> Labels:
    """Labels of a layer's output, which are the same in source and target."""
    labels = [(name, j) for j in range(width)]
    return labels, labels


def _copy_dense(source: Any, target: Any, rows: Labels, columns: Labels) -> None:
    _place(source.kernel, target.kernel, rows, columns)
    target.bias.assign(source.bias)


def _copy_tower(
    source: Tower, target: Tower, old: list[Label], new: list[Label], copied: Copied
) -> None:
    labels = (old, new)
    for one, other in zip(source.layers, target.layers, strict=True):
        made = _both(one.name, one.units)
        _copy_dense(one, other, labels, made)
        copied.add("towers", other)
        labels = made


def _copy_fm(source: FM, target: FM, copied: Copied) -> None:
    """Copies the projections of the widths that both have."""
    for width, projection in source.projections.items():
        if width in target.projections:
            target.projections[width].kernel.assign(projection.kernel)
            copied.add("fm", target.projections[width])


def _copy_cross(source: Cross, target: Cross, labels: Labels, copied: Copied) -> None:
    rows = labels
    if source.rank is not None:
        rows = _both("rank", source.rank)
        _place(source.down.kernel, target.down.kernel, labels, rows)
    _place(source.dense.kernel, target.dense.kernel, rows, labels)
    before, behind = _common(labels)
    bias = target.dense.bias.numpy()
    bias[behind] = source.dense.bias.numpy()[before]
    target.dense.bias.assign(bias)
    copied.add(source.name, target)


def _common(labels: Labels) -> tuple[list[int], list[int]]:
    """Positions of the labels that both have, in each."""
    position = {label: i for i, label in enumerate(labels[0])}
    shared = [(position[label], j) for j, label in enumerate(labels[1]) if label in position]
    return [i for i, _ in shared], [j for _, j in shared]


def _place(source: Any, target: Any, rows: Labels, columns: Labels) -> None:
    """Copies a kernel by the labels of its inputs and outputs; other inputs get zeros."""
    old_rows, new_rows = _common(rows)
    old_columns, new_columns = _common(columns)
    values = np.array(target)
    values[:, new_columns] = 0.0
    values[np.ix_(new_rows, new_columns)] = np.array(source)[np.ix_(old_rows, old_columns)]
    target.assign(values)
