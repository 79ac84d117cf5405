"""Several sets of embeddings that interact set by set, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig


class MultiEmbedding(FoundationModel):
    """K sets of embeddings, a block for each, and their mean behind a non-linearity.

        u^k = UserTower^k(user fields of set k), i^k = ItemTower^k(item fields of set k)
        m = 1/K sum_k relu(W_k Block^k(u^k, i^k, context of set k) + b_k)
        p_{s,t} = sigmoid(head_{s,t}(Shared(m)))

    It is the foundation model with `block.sets: each`, whatever its configuration says there: sets
    are added where a wider embedding would collapse. UR is [u^0; ...; u^(K-1)], IR likewise. With
    one set it is one block, one relu layer and the shared layers.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the heads.
        network: Towers of each set, block of each set, shared layers and heads.
        embeddings: Tables, of K sets.
        seed: Seed of all initial weights.

    Raises:
        UserError: See `FoundationModel`; or the block is `gated`.

    Source: Guo et al., On the Embedding Collapse When Scaling Up Recommendation Models (ICML 2024);
    Pan et al., Ads Recommendation in a Collapsed and Entangled World (KDD 2024). Towers, and heads
    per scenario and task, are ours.
    """

    reads = ("network.block",)
    kind = "multi_embedding"

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(layout, _each_set(network), embeddings, seed=seed)

    @classmethod
    def create(
        cls,
        layout: FeatureLayout,
        config: UpstreamConfig,
        embeddings: EmbeddingsConfig,
        *,
        seed: int,
    ) -> Self:
        """See `UpstreamModel`."""
        return cls(layout, config.network, embeddings, seed=seed)

    @classmethod
    def default_sets(cls, config: UpstreamConfig, tasks: Sequence[str]) -> int:
        """4."""
        return 4

    @classmethod
    def _network(cls, config: UpstreamConfig) -> NetworkConfig:
        """With a block for each set."""
        return _each_set(config.network)


def _each_set(network: NetworkConfig) -> NetworkConfig:
    """The network with a block for each set."""
    return network.model_copy(update={"block": network.block.model_copy(update={"sets": "each"})})
