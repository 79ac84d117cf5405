"""What an upstream model is."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.task_model import TaskModel
from lfm4ads_tf.models.two_towers import TwoTowers
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel


class UpstreamModel(TaskModel):
    """A model trained on the logs of all scenarios and tasks, whose representations are handed on.

    The rest of the system asks the class for all that it must know. A class is registered under
    the name that `upstream.model` gives, with `UPSTREAMS.register(name)`; its options are the keys
    below `upstream.<name>`.

    Attributes:
        Config: Its options; without any, it has no section of its own.
        reads: Keys below `upstream`, such as `network.block`, that it reads beside its options,
            the towers, the tables and the training. A key that only others read is refused.
        backbone: Tables and towers; a warm start may copy them.
        heads: What gives the logits; copied by a warm start up to the output, where there is a
            block.

    Raises:
        UserError: The Keras dtype policy is another one than float32.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> upstream = lfm.MMoE(log.layout)
        >>> isinstance(upstream, lfm.UpstreamModel)
        True
        >>> stored = upstream.represent(next(iter(log.dataset("test", batch_size=8))))
        >>> sorted(stored)
        ['IR', 'UR', 'mix_click', 'mix_conversion', 'towers']
    """

    Config: ClassVar[type[StrictModel] | None] = None
    reads: ClassVar[tuple[str, ...]] = ()

    backbone: TwoTowers
    heads: Any

    @classmethod
    def of(cls, options: Any) -> type[UpstreamModel]:
        """The class that is built for some options; here this one, whatever they are.

        Args:
            options: An instance of `Config`, None without any.
        """
        return cls

    @classmethod
    def registered_name(cls) -> str:
        """The name in `UPSTREAMS` that stands for it.

        Raises:
            UserError: The class is not registered.
        """
        return UPSTREAMS.name_of(cls)

    @classmethod
    def create(
        cls,
        layout: FeatureLayout,
        config: UpstreamConfig,
        embeddings: EmbeddingsConfig,
        *,
        seed: int,
    ) -> Self:
        """The model of a configuration, at its initial weights.

        Here the constructor takes layout, network, tables and options, and the seed by name.

        Args:
            layout: Columns of the encoded batch; its scenarios and tasks size the heads.
            config: The configuration; `config.options` holds an instance of `Config`.
            embeddings: The tables, those of the configuration or the same for inference.
            seed: Seed of all initial weights.
        """
        make: Any = cls
        model: Self = make(layout, config.network, embeddings, config.options, seed=seed)
        return model

    def configuration(self) -> UpstreamConfig:
        """The configuration that `create` makes this model of, training apart.

        Here towers, block, tables, branches and options are read from the constructor's arguments
        by their types; a class whose constructor takes others overrides it.

        Raises:
            UserError: The class is not registered in `UPSTREAMS`.
        """
        name, given = self.registered_name(), self.arguments
        sections: dict[str, Any] = {"model": name}
        for value in given.values():
            if isinstance(value, NetworkConfig):
                sections["network"] = value
            elif isinstance(value, EmbeddingsConfig):
                sections["embeddings"] = value
            elif self.Config is not None and isinstance(value, self.Config):
                sections[name] = value
        if "branches" in given:
            sections["branches"] = given["branches"]
        return UpstreamConfig(**sections)

    @classmethod
    @abc.abstractmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """Names of the activations that `represent` gives, in order; each can be a CR's layer."""

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """Levels of a warm start, each including those before it -> the layer that it ends at.

        Here the tables and the towers, which every upstream has; `embeddings` and `output` are no
        layers and stand for themselves.
        """
        return {"embeddings": "embeddings", "towers": "towers"}

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """Layers whose CR the method `full` takes: the last stored one.

        Args:
            config: The configuration.
            tasks: The tasks.
            stored: Layers with a stored CR.
        """
        return [name for name in cls.activation_names(config, tasks) if name in stored][-1:]

    @classmethod
    def block_config(cls, config: UpstreamConfig) -> BlockConfig | None:
        """Structure of its interaction block, None where it has none.

        The block is what the isomorphic module is isomorphic to.
        """
        return None

    @classmethod
    def default_sets(cls, config: UpstreamConfig, tasks: Sequence[str]) -> int:
        """`upstream.embeddings.sets` where the configuration does not give it; here 1.

        Args:
            config: The configuration, but for the sets.
            tasks: The tasks of the feature spec.
        """
        return 1

    @classmethod
    def settled(cls, config: UpstreamConfig, spec: FeatureSpec) -> UpstreamConfig:
        """The configuration with what the feature spec settles; here as it is.

        Args:
            config: The configuration.
            spec: The feature spec.

        Raises:
            UserError: They do not fit.
        """
        return config

    @classmethod
    def tables(cls, config: UpstreamConfig, layout: FeatureLayout) -> EmbeddingsConfig:
        """The tables that the model has for a log, which a warm start copies; here as configured.

        Args:
            config: The configuration.
            layout: Columns of the encoded batch, with the scenarios.

        Raises:
            UserError: They do not fit the log.
        """
        return config.embeddings

    @classmethod
    def check(cls, config: UpstreamConfig, *, ads: bool) -> None:
        """Refuses a configuration that cannot be built.

        Args:
            config: The configuration.
            ads: Whether the feature spec tells ads from content.

        Raises:
            UserError: It cannot.
        """
        if config.branches and "branches" not in cls.reads:
            raise UserError(
                f"The upstream model '{config.model}' has no branches.",
                received="upstream.branches: true",
                fix="set upstream.branches=false, or take an upstream that has them, such as "
                "foundation",
            )

    @classmethod
    def check_tasks(cls, config: UpstreamConfig, tasks: Sequence[str]) -> None:
        """Refuses tasks that the model cannot be built for; here there are none.

        Args:
            config: The configuration.
            tasks: The tasks of the feature spec.

        Raises:
            UserError: It cannot.
        """

    @classmethod
    def check_scenarios(cls, config: UpstreamConfig, *, given: bool) -> None:
        """Refuses a log with or without scenarios; here both are taken.

        Args:
            config: The configuration.
            given: Whether the feature spec names a scenario column.

        Raises:
            UserError: The model cannot be built for it.
        """

    @classmethod
    def check_scenario_rows(cls, config: UpstreamConfig, rows: Mapping[str, int]) -> None:
        """Refuses scenarios that the model cannot learn from; here all are taken.

        Args:
            config: The configuration.
            rows: Every scenario of the log -> its rows in training, auxiliary ones among them; 0
                where only later rows have it. A log without scenarios has one, `all`.

        Raises:
            UserError: It cannot.
        """

    @classmethod
    def least_rows(cls, config: UpstreamConfig) -> int:
        """Rows that a scenario weighs as having in a batch where it has fewer; here 0.

        It is the option `least_rows` of a model whose loss is a mean for each scenario; scenarios
        that have fewer on average are told before the training.

        Args:
            config: The configuration.
        """
        return 0

    @classmethod
    def check_labels(cls, config: UpstreamConfig, labels: Mapping[str, np.ndarray]) -> None:
        """Refuses training labels that the model cannot learn from; here all are taken.

        Args:
            config: The configuration.
            labels: Task -> labels of the training rows (N,), NaN where unknown, read when asked
                for.

        Raises:
            UserError: It cannot.
        """

    @classmethod
    def check_new_labels(cls, config: UpstreamConfig, labels: Mapping[str, np.ndarray]) -> None:
        """Refuses labels of a refresh's new rows that contradict the model; here all are taken.

        A task without a positive among them is no reason: a day may have none, and the model has
        learned the task before.

        Args:
            config: The configuration.
            labels: Task -> labels of the new rows (N,), NaN where unknown.

        Raises:
            UserError: They do.
        """

    @property
    def all_embeddings(self) -> list[ShardedEmbedding]:
        """All layers that hold tables."""
        return [self.backbone.embeddings]

    @property
    def block(self) -> InteractionBlock | None:
        """The interaction block that a warm start copies, None where there is none."""
        return None

    @property
    @abc.abstractmethod
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""

    def observed(self, batch: EncodedBatch) -> Mapping[str, tf.Tensor | ObservedTokens]:
        """What tells how the model works: numbers such as the weights of its gates; here nothing.

        Means of numbers over the validation rows are logged after training and stand in
        `results.json`; so does what `diagnostics` makes of tokens, on a sample of these rows.

        Args:
            batch: A batch.

        Returns:
            Name -> (B,), or `<layer>/<place>` -> tokens.
        """
        return {}

    @abc.abstractmethod
    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), a function of user features alone; `IR` (B, d_i), of item features
            alone; and the sample-level CR (B, d) of every layer by the layer's name.
        """
