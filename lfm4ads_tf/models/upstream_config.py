"""Configuration of the upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import ConfigDict, model_validator

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.registry_key import known_name
from lfm4ads_tf.strict import StrictModel, nested_options, unknown_key
from lfm4ads_tf.training.config import FittedTrainingConfig


class UpstreamConfig(StrictModel):
    """The large model that representations come from.

    The keys below the name of a model, such as `mmoe`, are options of that model.

    Attributes:
        model: A registered upstream model. `foundation`: an interaction block below all heads.
            `mmoe`: experts in its place, mixed by one gate per task. `single_task`,
            `shared_bottom`, `omoe` and `ple` share less or more between the tasks; `esmm` and
            `aitm` are for tasks of which one follows the other; `multi_embedding` has a block for
            each of several sets of embeddings.
        network: Towers, block and heads; a model without a block does not read the block.
        branches: Whether content and ads, which the spec's `ads` tells apart, have an interaction
            block and heads of their own over the same towers; `foundation` only.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    model: Annotated[str, known_name(UPSTREAMS)] = "foundation"
    network: NetworkConfig = NetworkConfig()
    branches: bool = False
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    training: FittedTrainingConfig = FittedTrainingConfig(schedule="chain")

    @classmethod
    def known_keys(cls) -> list[str]:
        """The keys that it reads, those of the registered models among them."""
        model_names = [name for name in UPSTREAMS if UPSTREAMS[name].Config is not None]
        for name in model_names:
            if name in cls.model_fields:
                raise UserError(
                    f"An upstream model with options cannot be called '{name}'.",
                    received=f"upstream.{name} is a key of every upstream",
                    fix="register it under another name",
                )
        return [*cls.model_fields, *model_names]

    @property
    def model_class(self) -> Any:
        """The `UpstreamModel` that is built for the configuration."""
        return UPSTREAMS[self.model].of((self.model_extra or {}).get(self.model))

    @property
    def options(self) -> Any:
        """Options of the model, an instance of its `Config`."""
        return (self.model_extra or {})[self.model]

    def layer_names(self, tasks: Sequence[str]) -> list[str]:
        """Names of the model's activations, in order; each can be a CR's layer.

        Raises:
            UserError: A task's name cannot be part of a layer's name.
        """
        names: list[str] = self.model_class.activation_names(self, tasks)
        return names

    def warm_start_levels(self, tasks: Sequence[str]) -> dict[str, str]:
        """Levels of a warm start in order -> the layer that each ends at."""
        levels: dict[str, str] = self.model_class.levels(self, tasks)
        return levels

    @property
    def block(self) -> BlockConfig | None:
        """Structure of the model's interaction block, None where it has none."""
        block: BlockConfig | None = self.model_class.block_config(self)
        return block

    @property
    def read_block(self) -> BlockConfig | None:
        """The interaction block that the model reads, also where there is one for each set."""
        return self.network.block if "network.block" in self.model_class.reads else self.block

    @model_validator(mode="after")
    def _with_options(self) -> Self:
        """Options of the chosen model; those of others where they were given and are no defaults.

        What a plug-in adds to the registry changes no configuration that does not name it.
        """
        extra: dict[str, Any] = self.__pydantic_extra__  # type: ignore[assignment]
        known = self.known_keys()
        for name in extra:
            if name not in known:
                raise unknown_key(name, known)
        for name in known[len(type(self).model_fields) :]:
            if name not in extra and name != self.model:
                continue
            given = extra.pop(name, {})
            config = UPSTREAMS[name].Config
            if not isinstance(given, config):
                given = nested_options(config, given, name)
            if name == self.model or given.model_dump(exclude_defaults=True):
                extra[name] = given
        return self
