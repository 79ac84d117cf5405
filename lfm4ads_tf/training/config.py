"""How models are trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lfm4ads_tf.errors import nearest
from lfm4ads_tf.losses.registry import LOSSES
from lfm4ads_tf.optim.rules.registry import RULES
from lfm4ads_tf.registry_key import known_name
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.written import UNREAD


class OptimizerConfig(StrictModel):
    """A row-sparse rule for the tables, Adam (AdamW with a decay) for the rest.

    Attributes:
        table_learning_rate, dense_learning_rate: Step sizes.
        rule: Update rule of the tables: `adagrad`, `rowwise_adagrad` (one float of state per row
            and set), `adam`, `adamw`, `ftrl` or `sgd`, all touching only the rows of the batch.
        rule_options: Options of the rule, see `lfm4ads_tf.optim.rules`.
        adagrad_initial: Initial value of Adagrad's accumulator, short for the rule's `initial`.
        group_rates: Factors of the learning rates, by table group or by parts of a dense variable's
            path: `dnn_1` is every layer of this name, `dnn_1/kernel` the kernels of it alone.
        weight_decay: Decoupled decay of the dense variables.
        table_l2: L2 on the rows that a batch touched.
        clip_norm: Bound of the global norm of all gradients.
    """

    table_learning_rate: float = Field(default=0.05, gt=0)
    dense_learning_rate: float = Field(default=1e-3, gt=0)
    rule: Annotated[str, known_name(RULES)] = "adagrad"
    rule_options: dict[str, float | bool] = {}
    adagrad_initial: float = Field(default=0.1, gt=0)
    group_rates: dict[str, Annotated[float, Field(ge=0)]] = {}
    weight_decay: float = Field(default=0.0, ge=0)
    table_l2: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)


class TrainingConfig(StrictModel):
    """How a model is trained.

    Attributes:
        schedule: `epochs` shuffles all training rows each epoch and stops early on validation;
            `chain` walks the periods in time order, `passes` over each, and keeps one weight
            snapshot per period: the point-in-time upstream.
        batch_size: Rows a step.
        epochs: Upper bound of epochs.
        passes: Passes over each period of the chain.
        replay: Earlier periods whose rows are mixed into each period's, so that every row is seen
            in `replay` + 1 periods and the last one does not wash out the others.
        final_passes: Passes over all training periods after the chain, for the weights that are
            served and that held-out rows are represented by; the snapshots before stay as they are.
        final_decay: Factor of the learning rates from one final pass to the next.
        auxiliary_passes: Passes over the auxiliary rows before the first period.
        patience: Epochs without a gain of `min_gain` in the mean validation AUC before stopping.
        min_gain: Smallest gain in AUC that counts.
        shuffle: Whether rows are shuffled inside an epoch or period.
        shuffle_window: Shuffles only inside stretches of this many rows in time order, for a cache
            larger than memory or in packed form; the whole epoch or period when absent.
        checkpoint_every: Steps between two checkpoints.
        keep_checkpoints: Checkpoints that are kept, of which `--resume-from` chooses one. The one
            before is always kept until the new one is whole.
        task_weights: Task -> weight of its loss; 1 when absent.
        loss: Name of the loss over the tasks, see `lfm4ads_tf.losses.registry`.
        loss_options: Options of the loss.
        precision: `mixed_bfloat16`: the larger matrix products of the dense layers round their
            operands to bfloat16 in training; variables, losses and all else stay float32.
    """

    schedule: Literal["epochs", "chain"] = "epochs"
    batch_size: int = Field(default=1024, ge=1)
    epochs: int = Field(default=10, ge=1)
    passes: int = Field(default=1, ge=1)
    replay: int = Field(default=0, ge=0)
    final_passes: int = Field(default=0, ge=0)
    final_decay: float = Field(default=1.0, gt=0, le=1)
    auxiliary_passes: int = Field(default=1, ge=0)
    patience: int = Field(default=1, ge=1)
    min_gain: float = Field(default=0.0, ge=0)
    shuffle: bool = True
    shuffle_window: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=1, ge=1)
    task_weights: dict[str, float] = {}
    loss: str = "bce"
    loss_options: dict[str, Annotated[Any, UNREAD]] = {}
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    optimizer: OptimizerConfig = OptimizerConfig()

    @field_validator("loss")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in LOSSES:
            raise ValueError(
                f"there is no such loss.{nearest(name, LOSSES)} Known losses: {', '.join(LOSSES)}"
            )
        return name


class FittedTrainingConfig(TrainingConfig):
    """How a model is trained that can choose its training by itself.

    Attributes:
        auto: Whether batch size, rates, decay, dropout and the passes of the chain are chosen from
            the size of the log and a short search on the last training period. Keys that are given
            stay as they are.
    """

    auto: bool = True
