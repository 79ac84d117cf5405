"""The optimizers of an objective, built for one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.optimizer_part import OptimizerPart
from lfm4ads_tf.optim.replicas import mean_over_replicas
from lfm4ads_tf.optim.rules.row_rule import row_rule, rule_variant
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.variable_paths import path_of, segments, unmatched
from lfm4ads_tf.training.config import OptimizerConfig


class ModelOptimizers:
    """One `HybridOptimizer` per optimizer of an objective, with its variables of a model.

    Args:
        objective: Whose optimizers are built.
        model: The model, already built.
        embeddings: The model's sharded tables.

    Raises:
        UserError: A trainable variable is taken by two optimizers, or by none and not declared
            frozen; an optimizer takes none; or a key of `group_rates` matches nothing.
    """

    def __init__(
        self, objective: Objective, model: tf_keras.Model, embeddings: Sequence[ShardedEmbedding]
    ) -> None:
        self.model = model
        self._parts = [_Built(part, made_optimizer(part)) for part in objective.optimizers]
        self._layers: dict[int, HybridOptimizer] = {}  # id of a layer -> the one that takes it
        self._owners: dict[int, HybridOptimizer] = {}  # id of a variable -> the one that takes it
        tables = {id(part) for layer in embeddings for part in layer.all_parts()}
        dense = [v for v in model.trainable_variables if id(v) not in tables]
        paths = {id(v): path_of(v) for v in dense}
        of_part: dict[str, tuple[list[ShardedEmbedding], list[tf.Variable]]] = {
            built.part.name: ([], []) for built in self._parts
        }
        for layer in embeddings:
            trained = any(fused.trainable for fused in layer.layout.fused.values())
            built = self._taker(layer.name, objective, required=trained)
            if built is not None:
                self._layers[id(layer)] = built.optimizer
                self._owners |= {id(p): built.optimizer for p in layer.all_parts()}
                of_part[built.part.name][0].append(layer)
        for variable in dense:
            built = self._taker(paths[id(variable)], objective, required=True)
            if built is not None:
                self._owners[id(variable)] = built.optimizer
                of_part[built.part.name][1].append(variable)
        still = [v for v in model.non_trainable_variables if id(v) not in tables]
        for built in self._parts:
            layers, variables = of_part[built.part.name]
            if built.part.takes is not None and not (layers or variables):
                raise UserError(
                    f"The optimizer '{built.part.name}' takes no variable of the model.",
                    received=f"paths such as {', '.join([*paths.values()][:3])}",
                )
            built.optimizer.build(layers, variables)
        self._require_matches(of_part, [path_of(v) for v in still])

    @property
    def optimizers(self) -> dict[str, HybridOptimizer]:
        """The optimizers by the name of their part."""
        return {built.part.name: built.optimizer for built in self._parts}

    @property
    def variables(self) -> list[tf.Variable]:
        """Slots, counters and rates of all optimizers."""
        return [v for built in self._parts for v in built.optimizer.variables]

    def of(self, layer: ShardedEmbedding) -> HybridOptimizer | None:
        """The optimizer that keeps the slots of a layer's tables; None where none takes it."""
        return self._layers.get(id(layer))

    def scale_rates(self, factor: float) -> None:
        """Sets all learning rates to a factor of those that the optimizers were made with."""
        for built in self._parts:
            built.optimizer.scale_rates(factor)

    def set_rates(
        self, table_learning_rate: float, dense_learning_rate: float, *, instead: OptimizerConfig
    ) -> None:
        """Moves all learning rates as those of one configuration are moved.

        Args:
            table_learning_rate, dense_learning_rate: The new rates of `instead`.
            instead: The configuration; an optimizer with other rates keeps its ratio to them.
        """
        for built in self._parts:
            config, optimizer = built.part.config, built.optimizer
            of_table = config.table_learning_rate / instead.table_learning_rate
            of_dense = config.dense_learning_rate / instead.dense_learning_rate
            optimizer.table_learning_rate.assign(of_table * table_learning_rate)
            optimizer.dense_learning_rate.assign(of_dense * dense_learning_rate)

    def apply(self, tape: tf.GradientTape, sums: Sequence[tf.Tensor]) -> None:
        """One step of every optimizer.

        Args:
            tape: The tape of the losses, persistent where there are several optimizers. All
                gradients are taken before a variable moves.
            sums: What each optimizer minimises, see `Objective.sums`.
        """
        pairs = []
        for built, value in zip(self._parts, sums, strict=True):
            taken = [
                v
                for v in self.model.trainable_variables
                if self._owners.get(id(v)) is built.optimizer
            ]
            gradients = tape.gradient(value, taken)
            moved = [(g, v) for g, v in zip(gradients, taken, strict=True) if g is not None]
            means = mean_over_replicas([g for g, _ in moved])
            pairs.append([(mean, v) for mean, (_, v) in zip(means, moved, strict=True)])
        for built, grads_and_vars in zip(self._parts, pairs, strict=True):
            built.optimizer.apply_gradients(grads_and_vars)

    def _taker(self, path: str, objective: Objective, *, required: bool) -> _Built | None:
        """Who takes the variable or the tables of a path."""
        named = [b for b in self._parts if b.part.takes is not None and b.part.takes(path)]
        if len(named) > 1:
            raise UserError(
                f"Two optimizers take '{path}'.",
                received=" and ".join(built.part.name for built in named),
                fix="let `takes` of one of them leave it to the other",
            )
        if named:
            return named[0]
        if objective.frozen is not None and objective.frozen(path):
            return None
        rest = [built for built in self._parts if built.part.takes is None]
        if required and not rest:
            raise UserError(
                f"No optimizer takes '{path}'.",
                fix="let one take it, leave one without `takes`, or declare it frozen",
            )
        return rest[0] if rest else None

    def _require_matches(
        self,
        of_part: Mapping[str, tuple[Sequence[ShardedEmbedding], Sequence[tf.Variable]]],
        still: Sequence[str],
    ) -> None:
        """Refuses a key of `group_rates` that moves nothing.

        Several optimizers may be given the rates of one configuration: a key may be for one alone.

        Args:
            of_part: Name of an optimizer -> the layers and the dense variables that it takes.
            still: Paths of the variables that are not trained.

        Raises:
            UserError: There is one; the nearest name is told.
        """
        keys = dict.fromkeys(k for built in self._parts for k in built.optimizer.group_rates)
        for key in keys:
            readers = [b.part.name for b in self._parts if key in b.optimizer.group_rates]
            groups = _groups([layer for name in readers for layer in of_part[name][0]])
            variables = [v for name in readers for v in of_part[name][1]]
            paths = [*(path_of(v) for v in variables), *still]
            if unmatched([key], paths, groups):
                known = [*groups, *segments(paths)]
                raise UserError(
                    f"optimizer.group_rates names '{key}', which is neither a table group nor a "
                    f"whole part of a variable's path.{nearest(key, known)}",
                    received=f"groups {', '.join(groups) or 'none'}; "
                    f"parts {', '.join(segments(paths))}",
                    fix="use a group, a part of a path, or several parts that follow each other, "
                    "joined by '/'",
                )


def unmatched_rates(
    config: OptimizerConfig, model: tf_keras.Model, embeddings: Sequence[ShardedEmbedding]
) -> list[str]:
    """The keys of `group_rates` that match no table group and no dense variable of a model."""
    tables = {id(part) for layer in embeddings for part in layer.all_parts()}
    paths = [path_of(v) for v in model.variables if id(v) not in tables]
    return unmatched(config.group_rates, paths, _groups(embeddings))


def table_rule(config: OptimizerConfig) -> RowRule:
    """The rule of the tables.

    Raises:
        UserError: An option is unknown or out of its bounds.
    """
    options: dict[str, Any] = dict(config.rule_options)
    for option, key in rule_variant(config.rule).rule.shorthands.items():
        options.setdefault(option, getattr(config, key))
    return row_rule(config.rule, **options)


def made_optimizer(part: OptimizerPart) -> HybridOptimizer:
    """The optimizer of a part, made from its configuration where it holds none."""
    if part.optimizer is not None:
        return part.optimizer
    config = part.config
    return HybridOptimizer(
        config.table_learning_rate,
        config.dense_learning_rate,
        rule=table_rule(config),
        group_rates=config.group_rates,
        weight_decay=config.weight_decay,
        table_l2=config.table_l2,
        clip_norm=config.clip_norm,
        name=part.name,
    )


@dataclass(frozen=True)
class _Built:
    """A part of the objective and its optimizer."""

    part: OptimizerPart
    optimizer: HybridOptimizer


def _groups(embeddings: Sequence[ShardedEmbedding]) -> list[str]:
    """Learning-rate groups of tables, those of frozen ones too."""
    groups = (fused.group for layer in embeddings for fused in layer.layout.fused.values())
    return list(dict.fromkeys(group for group in groups if group))
