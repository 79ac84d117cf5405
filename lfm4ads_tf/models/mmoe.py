"""The multi-gate mixture of experts, as an upstream."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.strict import StrictModel


class MMoEConfig(StrictModel):
    """Multi-gate mixture of experts.

    Attributes:
        experts: Experts shared by all tasks.
        expert_units: Width of each layer of an expert.
        gate_units: Hidden units of each gate; empty means a softmax of W_t x.
        gate_bias: Whether a gate's scores have a bias.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    experts: int = Field(default=4, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_units: Units = []
    gate_bias: bool = False
    task_units: Units = [64]

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what a gate does not have: the documents of older runs have no such keys."""
        document: dict[str, Any] = handler(self)
        for key in ("gate_units", "gate_bias"):
            if not document.get(key, True):
                del document[key]
        return document


class MMoE(MixtureModel):
    """User tower, item tower, experts shared by all tasks, and one gate and tower per task.

        x = [UR; IR; context],  m_t = sum_e softmax(G_t(x))_e f_e(x)
        u_t = TaskTower_t(m_t),  p_{s,t} = sigmoid(w_t u_t + b_t + w_{s,t} u_t + b_{s,t})

    The scenarios' own w_{s,t} and b_{s,t} are as in `ScenarioTaskHeads`. A gate is W_t x, or has
    hidden layers.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the towers.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        mixture: Experts and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: See `FoundationModel`.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018); the scenarios' corrections are ours.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> model = lfm.MMoE(log.layout, embeddings=lfm.EmbeddingsConfig(dim=4))
        >>> model(next(iter(log.dataset("test", batch_size=32)))).shape
        TensorShape([32, 2])
        >>> model.layer_names
        ['towers', 'mix_click', 'mix_conversion']
    """

    Config = MMoEConfig
    needs_positives = False  # it was trained without them before others were made

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        mixture: MMoEConfig = MMoEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = ExpertMixture(
            mixture.experts,
            mixture.expert_units,
            len(layout.tasks),
            gate_units=mixture.gate_units,
            gate_bias=mixture.gate_bias,
            seed=seed,
            name="experts",
        )
        super().__init__(
            layout,
            network,
            embeddings,
            mixture,
            experts,
            mixture.task_units,
            seed=seed,
            name="mmoe",
        )
