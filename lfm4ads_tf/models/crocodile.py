"""Experts over embedding sets that all scenarios share, kept apart by a penalty, as an upstream."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.interactions.element_gate import ElementGate
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.scenario_embedding import ScenarioEmbedding, group_of
from lfm4ads_tf.interactions.tower_bank import TowerBank
from lfm4ads_tf.losses.covariance import Normalise, covariance_penalty
from lfm4ads_tf.losses.row_weights import task_columns
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.key_features import key_features
from lfm4ads_tf.models.mixture_model import joined
from lfm4ads_tf.models.scenario_checks import (
    check_mixtures,
    refuse_few_scenarios,
    refuse_mixtures,
    refuse_unknown_mixtures,
    refuse_without_scenarios,
)
from lfm4ads_tf.models.scenario_mixture import scenario_layers, scenario_layers_handed_over
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.models.two_towers import build_embeddings, own_columns
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel

_INSTEAD = "take an upstream for one scenario, such as me_mmoe"


class CrocodileConfig(StrictModel):
    """Crocodile.

    Attributes:
        experts: Number of experts M, and of sets of embeddings.
        one_set: Whether all experts read one set of embeddings, for comparison: it can be M times
            as wide for as many floats.
        expert_units: Width of each layer of an expert; the last one is h.
        priors: Features whose prior embeddings the gates read; where absent, the spec's user and
            item key, as far as they are embedded features.
        scenario_prior: Whether the gates read an embedding of the scenario too.
        prior_dim: Width of each prior embedding.
        gate_per: What has a gate: each `scenario`, with one more for unknown ones, or each `task`.
        mixtures_of: With `gate_per: scenario`, scenarios whose mixture is a layer of its own,
            `mix_<scenario>`, of every row.
        vector_gate: Whether a gate has one weight for all dimensions of an expert, for comparison.
        alpha: Weight of the covariance penalty.
        covariance_rows: Rows that the penalty is computed on; all where absent.
        normalise: See `covariance_penalty`.
        least_rows: A scenario with fewer rows in a batch weighs as if it had so many; as many as
            the batch has, and all rows weigh alike.
        task_units: Hidden units of each tower; empty means logits of the mixture itself.
    """

    experts: int = Field(default=5, ge=2)
    one_set: bool = False
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 64]
    priors: list[str] | None = None
    scenario_prior: bool = True
    prior_dim: int = Field(default=16, ge=1)
    gate_per: Literal["scenario", "task"] = "scenario"
    mixtures_of: list[str] = []
    vector_gate: bool = False
    alpha: float = Field(default=0.1, ge=0)
    covariance_rows: int | None = Field(default=None, ge=2)
    normalise: Normalise = "rows"
    least_rows: int = Field(default=256, ge=1)
    task_units: Units = [64]


class Crocodile(SetModel):
    """m_s = sum_p w_{s,p} * O^p: expert p reads set p, and all sets serve all scenarios.

        O^p = f_p(x^p),  w_s = softmax over p of reshape(r W_s, (M, h)), dimension by dimension
        z_{s,t} = [w_t Tower_t(m_S) + c_t] + w_{s,t} Tower_{s,t}(m_s) + c_{s,t}
        L = sum_s (1 / N_s) sum_{rows of s} BCE + alpha L_cov

    r holds embeddings of the user, the item and the scenario from tables of their own; m_S is the
    mixture of a gate for all scenarios, which unknown ones have alone. N_s is the number of rows of
    the scenario in the batch, at least `least_rows`. See `SetModel`, `ElementGate` and
    `covariance_penalty`.

    Args:
        layout: Columns of the encoded batch; with two scenarios or more.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of as many sets as there are experts, or of one.
        mixture: Experts, gates, penalty and towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two scenarios, the tables have another number of sets, a
            prior is no embedded feature, the gates read none, or `mixtures_of` names an unknown
            scenario or one twice.

    Source: Crocodile: Cross Experts Covariance for Disentangled Learning in Multi-Domain
    Recommendation (arXiv 2405.12706); the body is known at second hand.
    """

    Config = CrocodileConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        mixture: CrocodileConfig = CrocodileConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        refuse_few_scenarios(type(self).__name__, layout.scenarios, instead=_INSTEAD)
        refuse_unknown_mixtures(mixture.mixtures_of, layout.scenarios)
        super().__init__(
            layout,
            network,
            embeddings,
            mixture,
            ExpertBank(
                [0] * mixture.experts if mixture.one_set else range(mixture.experts),
                mixture.expert_units,
                seed=seed,
            ),
            mixture.task_units,
            seed=seed,
            name="crocodile",
        )
        self.options = mixture
        self.priors = self._prior_tables(embeddings, seed)
        self.scenario = None
        if mixture.scenario_prior:
            self.scenario = ScenarioEmbedding(len(layout.scenarios), mixture.prior_dim, seed=seed)
        per_task = mixture.gate_per == "task"
        gates = len(layout.tasks) if per_task else len(layout.scenarios) + 1
        self.gates = ElementGate(gates, vector=mixture.vector_gate, seed=seed)

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        if options.one_set:
            return 1, f"all of its {options.experts} experts"
        return options.experts, f"each of its {options.experts} experts"

    @classmethod
    def settled(cls, config: UpstreamConfig, spec: FeatureSpec) -> UpstreamConfig:
        """See `UpstreamModel`; the priors, where the configuration does not give them."""
        options: CrocodileConfig = config.options
        priors = key_features(spec, options.priors, f"upstream.{config.model}.priors")
        if not priors and not options.scenario_prior:
            raise UserError(
                "Crocodile's gates read no prior.",
                received=f"upstream.{config.model}.scenario_prior: false, and no embedded feature "
                "that is the spec's user or item key",
                fix=f"name embedded features in upstream.{config.model}.priors",
            )
        update = {config.model: options.model_copy(update={"priors": priors})}
        return config.model_copy(update=update)

    @classmethod
    def check_scenarios(cls, config: UpstreamConfig, *, given: bool) -> None:
        """See `UpstreamModel`; it needs them."""
        what = f"The upstream model '{config.model}'"
        refuse_without_scenarios(what, given=given, instead=_INSTEAD)

    @classmethod
    def check_scenario_rows(cls, config: UpstreamConfig, rows: Mapping[str, int]) -> None:
        """See `UpstreamModel`; it needs two scenarios or more, and those that it is to name."""
        known = [scenario for scenario, count in rows.items() if count]
        refuse_few_scenarios(cls.__name__, known, instead=_INSTEAD)
        refuse_unknown_mixtures(config.options.mixtures_of, known)

    @classmethod
    def least_rows(cls, config: UpstreamConfig) -> int:
        """See `UpstreamModel`; the floor on N_s."""
        least: int = config.options.least_rows
        return least

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `SetModel`; scenarios have layers of their own where each has a gate."""
        super().refuse(options, embeddings, tasks)
        if options.gate_per == "task":
            refuse_mixtures(options.mixtures_of, instead="upstream.crocodile.gate_per=scenario")
        check_mixtures(options.mixtures_of)

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """`towers`, `mix` of the row's scenario and `mix_<scenario>`, or `mix_<task>`."""
        if config.options.gate_per == "task":
            return super().activation_names(config, tasks)
        return scenario_layers(config.options.mixtures_of)

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The stored mixtures, those of scenarios asked for before the row's, else the towers."""
        if config.options.gate_per == "task":
            return super().handed_over(config, tasks, stored)
        return scenario_layers_handed_over(config.options.mixtures_of, stored)

    @property
    def all_embeddings(self) -> list[ShardedEmbedding]:
        """Those of the towers, and the prior ones."""
        own = [] if self.priors is None else [self.priors]
        return [*super().all_embeddings, *own]

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        if self.options.gate_per == "task":
            return super().layer_names
        return scenario_layers(self.options.mixtures_of)

    def made_heads(self, units: Sequence[int], *, shared: bool, seed: int) -> TowerBank:
        """See `MixtureModel`; a tower for each scenario and task."""
        sizes = len(self.layout.scenarios), len(self.layout.tasks)
        return TowerBank(
            units, *sizes, per="both", shared=shared, seed=seed, name="scenario_towers"
        )

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""
        return self._logits(batch, self._outputs(batch, training), training)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """See `MixtureModel`.

        `mix` (B, h) is m_s of the row's own scenario, or m_S. `mix_<scenario>` (B, h) is what the
        model says of every row in that scenario: its gate, over r with its embedding.
        """
        user, item, stream = self._read(batch)
        keys, outputs = self._key_priors(batch), self.experts(stream)
        held = tf.unstack(self._mixed(keys, batch["scenario"], outputs), axis=1)  # 2 or T of (B, h)
        if self.options.gate_per == "scenario":
            asked = self._of_scenarios(keys, outputs, self.options.mixtures_of)
            held = [held[1], *(mixed[:, 0] for mixed in asked)]
        named = dict(zip(self.layer_names, [joined(stream), *held], strict=True))
        return {"UR": user, "IR": item, **named}

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> Mapping[str, tf.Tensor]:
        """`tasks`, each scenario's rows by their mean, and `covariance` where alpha is above 0."""
        outputs = self._outputs(batch, training)
        logits = self._logits(batch, outputs, training)
        terms = {"tasks": self._task_loss({**batch, "weights": self._row_weights(batch)}, logits)}
        if self.options.alpha:
            terms["covariance"] = self.options.alpha * covariance_penalty(
                outputs, rows=self.options.covariance_rows, normalise=self.options.normalise
            )
        return terms

    def observed(self, batch: EncodedBatch) -> Mapping[str, tf.Tensor]:
        """What the experts have in common in a batch, for each of its rows (B,) alike.

        `experts/covariance` is the penalty over all rows divided by B - 1; `experts/correlation`
        the mean of |correlation| over entries of two experts, which shrinking does not change;
        `experts/deviation` the mean deviation of an output. With `covariance_rows`, what the
        penalty reads on so many rows stands beside it (`experts/covariance_sampled`).
        """
        outputs = self._outputs(batch, False)
        deviation = tf.math.reduce_std(outputs, axis=0)  # (M, h)
        alive = tf.cast(deviation > 0, outputs.dtype)
        scaled = (outputs - tf.reduce_mean(outputs, axis=0)) * tf.math.divide_no_nan(
            alive, deviation
        )
        rows = tf.cast(tf.shape(outputs)[0], outputs.dtype)
        pairs = self.options.experts * (self.options.experts - 1) / 2
        # the penalty of scaled outputs is the sum over pairs of the mean |correlation|
        correlation = covariance_penalty(scaled) * (rows - 1) / (rows * pairs)
        numbers = {
            "experts/covariance": covariance_penalty(outputs),
            "experts/correlation": correlation,
            "experts/deviation": tf.reduce_mean(deviation),
        }
        if self.options.covariance_rows is not None:
            numbers["experts/covariance_sampled"] = covariance_penalty(
                outputs, rows=self.options.covariance_rows
            )
        return {name: tf.fill(tf.shape(outputs)[:1], value) for name, value in numbers.items()}

    def _outputs(self, batch: EncodedBatch, training: bool) -> tf.Tensor:
        """O of every expert, (B, M, h)."""
        return self.experts(self.backbone.stream(batch, training=training), training=training)

    def _logits(self, batch: EncodedBatch, outputs: tf.Tensor, training: bool) -> tf.Tensor:
        """Logits (B, T)."""
        keys, tasks = self._key_priors(batch), len(self.layout.tasks)
        per_task = self.options.gate_per == "task"
        if not self.heads.shared and not (per_task and self.scenario is None):
            # a row of an unknown scenario counts in the towers of all, as if it were of each
            every = self._of_scenarios(keys, outputs, self.layout.scenarios)
            if not per_task:
                every = [tf.repeat(mixed, tasks, axis=1) for mixed in every]
            read = tf.concat(every, axis=1)  # (B, S T, h)
            return self.heads(read, batch["scenario"], training=training)
        read = self._mixed(keys, batch["scenario"], outputs)
        if not per_task:
            # a row counts in the towers of its own scenario alone: all of them read m_s of that one
            order = [0] * tasks + [1] * (tasks * len(self.layout.scenarios))
            read = tf.gather(read, order, axis=1)  # (B, (1 + S) T, h)
        # of a gate for each task (B, T, h): every scenario's towers read the task's
        return self.heads(read, batch["scenario"], training=training)

    def _mixed(self, keys: list[tf.Tensor], scenario: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """m_S and m_s of the row's scenario, (B, 2, h), or m of every task (B, T, h)."""
        prior = self._prior(keys, scenario)
        if self.options.gate_per == "task":
            return self.gates([prior, outputs])
        last = len(self.layout.scenarios)
        own = group_of(scenario, last)  # (B,)
        asked = tf.stack([tf.fill(tf.shape(own), last), own], axis=1)
        return self.gates([prior, outputs, asked])

    def _of_scenarios(
        self, keys: list[tf.Tensor], outputs: tf.Tensor, scenarios: Sequence[str]
    ) -> list[tf.Tensor]:
        """m_s (B, 1, h), or m of every task (B, T, h), of all rows as if of some scenarios each."""
        mixed = []
        for scenario in scenarios:
            place = self.layout.scenarios.index(scenario)
            prior = self._prior(keys, tf.fill(tf.shape(outputs)[:1], place))
            gate = place if self.options.gate_per == "scenario" else None
            mixed.append(self.gates([prior, outputs], gate=gate))
        return mixed

    def _key_priors(self, batch: EncodedBatch) -> list[tf.Tensor]:
        """Prior embeddings of user and item, (B, .) each."""
        if self.priors is None:
            return []
        ids = own_columns(batch["ids"], self._read_layout.id_columns)
        every = self.priors(ids, batch.get("bags")).values()  # (B, F, 1, D) each
        return [tf.reshape(values, [-1, values.shape[1] * values.shape[3]]) for values in every]

    def _prior(self, keys: list[tf.Tensor], scenario: tf.Tensor) -> tf.Tensor:
        """r (B, d_r) of the keys' prior embeddings and of scenarios (B,)."""
        of_scenario = [] if self.scenario is None else [self.scenario(scenario)]
        return tf.concat([*keys, *of_scenario], axis=-1)

    def _row_weights(self, batch: EncodedBatch) -> tf.Tensor:
        """B / N_s, (B, 1) or (B, T): the loss is a sum over the rows divided by B.

        Rows of unknown scenarios are one scenario more.
        """
        count = len(self.layout.scenarios) + 1
        own = tf.one_hot(group_of(batch["scenario"], count - 1), count)  # (B, S + 1)
        of_scenario = tf.maximum(tf.reduce_sum(own, axis=0), float(self.options.least_rows))
        rows = tf.cast(tf.shape(own)[0], own.dtype)
        weights = tf.matmul(own, rows / of_scenario[:, tf.newaxis])  # (B, 1)
        return weights * task_columns(batch["weights"]) if "weights" in batch else weights

    def _prior_tables(self, embeddings: EmbeddingsConfig, seed: int) -> ShardedEmbedding | None:
        """Tables of the priors, one set of `prior_dim`; None without any."""
        names = self.options.priors or []
        embedded = [field.name for field in self.layout.fields]
        unknown = [name for name in names if name not in embedded]
        if unknown:
            raise UserError(
                f"A prior of Crocodile, '{unknown[0]}', is no embedded feature.",
                received=f"priors: {', '.join(names)}",
                fix=f"use some of {', '.join(embedded)}",
            )
        if not names:
            if not self.options.scenario_prior:
                raise UserError(
                    "Crocodile's gates read no prior.",
                    received="scenario_prior: False, and no priors",
                    fix=f"name some of {', '.join(embedded)} as priors",
                )
            return None
        self._read_layout = self.layout.only(names)
        tables = {t.name for t in self._read_layout.tables}
        own = {
            name: options.model_copy(update={"dim": self.options.prior_dim})
            for name, options in embeddings.tables.items()
            if name in tables
        }
        update = {"dim": self.options.prior_dim, "sets": 1, "tables": own}
        return build_embeddings(
            self._read_layout, embeddings.model_copy(update=update), seed=seed, name="priors"
        )
