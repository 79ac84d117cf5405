"""A small case of every layer and model of the package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

import lfm4ads_tf
from lfm4ads_tf.embeddings.config import TableOptions
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.cross import Cross
from lfm4ads_tf.interactions.cross_network import CrossNetwork
from lfm4ads_tf.interactions.dnn import DNN
from lfm4ads_tf.interactions.dropout import Dropout
from lfm4ads_tf.interactions.element_gate import ElementGate
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.fm import FM
from lfm4ads_tf.interactions.full_mixing import FullMixing
from lfm4ads_tf.interactions.gate_bank import GateBank
from lfm4ads_tf.interactions.gate_unit import GateUnit
from lfm4ads_tf.interactions.gated_towers import GatedTowers
from lfm4ads_tf.interactions.global_token import GlobalToken
from lfm4ads_tf.interactions.group_mixture import GroupMixture
from lfm4ads_tf.interactions.information_transfer import InformationTransfer
from lfm4ads_tf.interactions.input_tokens import InputTokens
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.ipnn import IPNN
from lfm4ads_tf.interactions.mixer import Mixer
from lfm4ads_tf.interactions.mixer_block import MixerBlock
from lfm4ads_tf.interactions.mixer_config import MixerConfig
from lfm4ads_tf.interactions.number_tokens import NumberTokens
from lfm4ads_tf.interactions.partitioned_norm import PartitionedNorm
from lfm4ads_tf.interactions.progressive_extraction import ProgressiveExtraction
from lfm4ads_tf.interactions.scenario_choice import ScenarioChoice
from lfm4ads_tf.interactions.scenario_embedding import ScenarioEmbedding
from lfm4ads_tf.interactions.set_extraction import SetExtraction
from lfm4ads_tf.interactions.set_mean import SetMean
from lfm4ads_tf.interactions.set_mixture import SetMixture
from lfm4ads_tf.interactions.sliced_tokens import SlicedTokens
from lfm4ads_tf.interactions.star_network import StarNetwork
from lfm4ads_tf.interactions.task_gates import TaskGates
from lfm4ads_tf.interactions.token_attention import TokenAttention
from lfm4ads_tf.interactions.token_network import TokenNetwork
from lfm4ads_tf.interactions.token_norm import TokenNorm
from lfm4ads_tf.interactions.token_pieces import joined_tokens
from lfm4ads_tf.interactions.tokens import FieldTokens
from lfm4ads_tf.interactions.tower_bank import TowerBank
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.models.aitm import AITM, AITMConfig
from lfm4ads_tf.models.ame import AME, AMEConfig
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.crocodile import Crocodile, CrocodileConfig
from lfm4ads_tf.models.esmm import ESMM, ESMMConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.group_tower import GroupTower
from lfm4ads_tf.models.heads import ScenarioTaskHeads
from lfm4ads_tf.models.me_mmoe import MEMMoE, MEMMoEConfig
from lfm4ads_tf.models.me_ple import MEPLE, MEPLEConfig
from lfm4ads_tf.models.mmoe import MMoE, MMoEConfig
from lfm4ads_tf.models.multi_embedding import MultiEmbedding
from lfm4ads_tf.models.omoe import OMoE, OMoEConfig
from lfm4ads_tf.models.pepnet import PEPNet, PEPNetConfig
from lfm4ads_tf.models.ple import PLE, PLEConfig
from lfm4ads_tf.models.sdem import SDEM
from lfm4ads_tf.models.set_tower import SetTower
from lfm4ads_tf.models.shared_bottom import SharedBottom, SharedBottomConfig
from lfm4ads_tf.models.single_task import SingleTask, SingleTaskConfig
from lfm4ads_tf.models.star import STAR, STARConfig
from lfm4ads_tf.models.stem import STEM
from lfm4ads_tf.models.stem_al import STEMAL, STEMALConfig
from lfm4ads_tf.models.stem_config import STEMConfig
from lfm4ads_tf.models.task_towers import TaskTowers
from lfm4ads_tf.models.tower import Tower
from lfm4ads_tf.models.two_towers import TwoTowers
from lfm4ads_tf.optim.optimizer_part import OptimizerPart
from lfm4ads_tf.optim.variable_paths import within
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import OptimizerConfig
from lfm4ads_tf.transfer.adapters.cross import CrossAdapter
from lfm4ads_tf.transfer.adapters.field_gate import FieldGateAdapter
from lfm4ads_tf.transfer.adapters.gate import GateAdapter
from lfm4ads_tf.transfer.adapters.linear import LinearAdapter
from lfm4ads_tf.transfer.adapters.mlp import MlpAdapter
from lfm4ads_tf.transfer.adapters.mlp_gate import MlpGateAdapter
from lfm4ads_tf.transfer.adapters.mlp_stack import MlpStack
from lfm4ads_tf.transfer.adapters.token import TokenAdapter
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from lfm4ads_tf.transfer.retrieval.projected_retriever import ProjectedRetriever
from lfm4ads_tf.transfer.retrieval.retriever import Retriever
from tests.small_models import EMBEDDINGS, LAYOUT, NETWORK, random_batch

LEFT_OUT = {
    # Its parts are vocabularies and tf.feature_column columns of a fitted spec, without weights: a
    # SavedModel holds them, and a run folder rebuilds them from spec and vocabularies.
    "lfm4ads_tf.features.encoder",
    # Published experiments as commands, with models of their own that nothing else may use.
    "lfm4ads_tf.experiments",
}
"""Modules and packages whose Keras classes have no case."""


@dataclass(frozen=True)
class Case:
    """A layer or model, and what it is called with.

    Attributes:
        name: The class, and what sets the case apart from others of the class.
        make: The layer, at its initial weights.
        inputs: Rows -> what it reads, tensors nested in mappings, lists and tuples.
        run: Layer, inputs and whether it trains -> what it gives; the layer's own call if absent.
        tables: Whether it reads tables, which are float32 under every dtype policy.
        unread: Parts of the names of variables that what it gives does not depend on.
        looked_up: Whether no gradient reaches the numbers that it reads.
    """

    name: str
    make: Callable[[], Any]
    inputs: Callable[[int], Any]
    run: Callable[[Any, Any, bool], Any] | None = None
    tables: bool = False
    unread: tuple[str, ...] = ()
    looked_up: bool = False

    @property
    def functional(self) -> bool:
        """Whether it reads plain tensors as its one argument, so that Keras' functional API can."""
        return self.run is None and not self.tables

    def __call__(self, layer: Any, inputs: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """The tensors that the layer gives, by their place."""
        if self.run is not None:
            return dict(tensors_of(self.run(layer, inputs, training)))
        takes = "training" in inspect.signature(type(layer).call).parameters
        options = {"training": training} if takes else {}
        return dict(tensors_of(layer(inputs, **options)))


def tensors_of(value: Any, place: str = "") -> Iterator[tuple[str, tf.Tensor]]:
    """The tensors in mappings, sequences and dataclasses."""
    if isinstance(value, tf.Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from tensors_of(member, f"{place}/{key}")
    elif isinstance(value, (list, tuple)):
        for k, member in enumerate(value):
            yield from tensors_of(member, f"{place}/{k}")
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name), f"{place}/{field.name}")


def classes() -> dict[str, type]:
    """Every public Keras layer and model class of the package that can be made, by module."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(lfm4ads_tf.__path__, "lfm4ads_tf."):
        if any(module.name == left or module.name.startswith(f"{left}.") for left in LEFT_OUT):
            continue
        for name, member in vars(importlib.import_module(module.name)).items():
            keras = isinstance(member, type) and issubclass(member, tf_keras.layers.Layer)
            own = keras and member.__module__ == module.name
            if own and not name.startswith("_") and not inspect.isabstract(member):
                found[f"{module.name}.{name}"] = member
    return found


def _numbers(*shapes: tuple[int, ...]) -> Callable[[int], Any]:
    """Rows -> a list of random tensors, (rows, *shape) each; one alone where there is one shape."""

    def inputs(rows: int) -> Any:
        rng = np.random.default_rng(11)
        values = [tf.constant(rng.normal(size=(rows, *s)), tf.float32) for s in shapes]
        return values[0] if len(values) == 1 else values

    return inputs


def _set_by_set(inputs: tf.Tensor) -> tf.Tensor:
    """(rows, sets, d) -> (sets, rows, d)."""
    return tf.transpose(inputs, [1, 0, 2])


_SEES = [[True, False, True], [True, True, True]]


def _fields(width: int, dim: int) -> dict[str, Any]:
    names = [f"{'fg'[dim == 3]}{k}" for k in range(width)]
    return {"names": names, "owners": ["user"] * width, "sets": 1, "dim": dim}


_GROUPS = (_fields(3, 4), _fields(2, 3))


def _block_inputs(rows: int) -> Any:
    user, item, context, *groups = _numbers((4,), (3,), (2,), (3, 4), (2, 3))(rows)
    return {"user": user, "item": item, "context": context, "groups": groups}


def _groups(inputs: Any, sets: int) -> list[FieldGroup]:
    return [
        FieldGroup(values, group["names"], group["owners"], sets)
        for values, group in zip(inputs["groups"], _GROUPS, strict=True)
    ]


def _run_block(layer: Any, inputs: Any, training: bool, sets: int = 1) -> Any:
    fields = _groups(inputs, sets)
    given = BlockInputs(inputs["user"], inputs["item"], inputs["context"], fields)
    return layer(given, training=training)


def _run_block_of_sets(layer: Any, inputs: Any, training: bool) -> Any:
    return _run_block(layer, inputs, training, sets=2)


def _block_inputs_of_sets(rows: int) -> Any:
    user, item, context, *groups = _numbers((6,), (4,), (2,), (3, 8), (2, 6))(rows)
    return {"user": user, "item": item, "context": context, "groups": groups}


def _block(**values: Any) -> BlockConfig:
    return parse(BlockConfig, values, source="block")


_LAYERS = [{"type": "fm", "dim": 4}, {"type": "cross", "depth": 2}, {"type": "dnn", "units": [5]}]
_EACH = _block(
    sets="each", set_dim=3, shared_units=[4], layers=[{"type": "ipnn", "dim": 4, "units": 3}]
)


def _tables(**options: Any) -> ShardedEmbedding:
    return ShardedEmbedding(
        [
            TableConfig("user", 20, 4, init_scale=0.5),
            TableConfig("item", 15, 4, init_scale=0.5, hashing=Hashing("double", 7)),
            TableConfig("tags", 9, 3, init_scale=0.5, trainable=False),
        ],
        [
            EmbeddedFeature("user", "user"),
            EmbeddedFeature("item", "item"),
            EmbeddedFeature("history", "item", "mean"),
            EmbeddedFeature("tags", "tags", "sum"),
            EmbeddedFeature("liked", "user", "max"),
        ],
        **options,
    )


def _ids(rows: int) -> Any:
    rng = np.random.default_rng(5)

    def bag(most: int) -> tf.RaggedTensor:
        lengths = rng.integers(0, 4, rows)
        return tf.RaggedTensor.from_row_lengths(rng.integers(-1, most, lengths.sum()), lengths)

    tags = bag(9)
    weights = tags.with_values(tf.constant(rng.random(tags.values.shape[0]), tf.float32))
    ids = np.stack([rng.integers(-1, most, rows) for most in (20, 15)], axis=1)
    bags = {"history": (bag(15), None), "tags": (tags, weights), "liked": (bag(20), None)}
    return {"ids": tf.constant(ids, tf.int64), "bags": bags}


def _look_up(layer: Any, inputs: Any, training: bool) -> Any:
    return layer(inputs["ids"], inputs["bags"], training=training)


def _stored(rows: int) -> Any:
    rng = np.random.default_rng(7)
    stored = {}
    for name, width in (("UR", 4), ("IR", 3)):
        values = rng.normal(size=(rows, width + 1)).astype(np.float32)
        values[:, -1] = np.arange(rows) % 3 != 1
        stored[name] = tf.constant(values * values[:, -1:])
    return stored


def _adapt(layer: Any, inputs: Any, training: bool) -> Any:
    return layer(inputs, width=6, training=training)


def _batch(rows: int) -> Any:
    branch = tf.constant(np.arange(rows) % 2, tf.int64)
    return {**random_batch(rows), "branch": branch, "representations": _stored(rows)}


def _run_heads(layer: Any, inputs: Any, training: bool) -> Any:
    return layer(inputs[0], inputs[1], training=training)


def _run_choice(layer: Any, inputs: Any, training: bool) -> Any:
    choice = layer(inputs[1], training=training)
    return tf.cast(inputs[0], choice.dtype) * choice


def _run_pair(layer: Any, inputs: Any, training: bool) -> Any:
    takes = "training" in inspect.signature(type(layer).call).parameters
    return layer(tuple(inputs), **({"training": training} if takes else {}))


def _head_inputs(width: int) -> Callable[[int], Any]:
    return lambda rows: [_numbers((width,))(rows), tf.constant(np.arange(rows) % 4 - 1, tf.int64)]


_COUNTS = np.array([5, 0, 1, 7, 2, 5])
_SHARDED = EMBEDDINGS.model_copy(
    update={
        "shards": 3,
        "sets": 2,
        "tables": {"city": TableOptions(trainable=False), "tab": TableOptions(storage="bfloat16")},
    }
)
_TWO_SETS = EMBEDDINGS.model_copy(update={"sets": 2})
_THREE_SETS = EMBEDDINGS.model_copy(update={"sets": 3})
_GATED = NETWORK.model_copy(
    update={"block": _block(structure="gated", mix_dim=3, layers=_LAYERS), "user_tower": []}
)
_OF_SETS = NETWORK.model_copy(update={"block": _EACH, "user_tower": [4], "item_tower": []})
_DROPPED = NETWORK.model_copy(
    update={"block": _block(layers=[*_LAYERS[:2], {"type": "dnn", "units": [5], "dropout": 0.5}])}
)


_TOKENS = [["f0", "g1"], ["f1"], ["f2", "g0"]]
_MIXER = MixerConfig(tokens=2, dim=8, depth=1, global_token="mlp", norm="pre", number_tokens=1)
_PENALISED = _MIXER.model_copy(update={"experts": 2, "experts_l1": 0.5, "decorrelation": 3.0})
_MIXED = _block(
    structure="parallel",
    layers=[{"type": "mixer", "tokens": 4, "dim": 8, "number_tokens": 0}, _LAYERS[2]],
)


def _mixer_inputs(inputs: Any) -> BlockInputs:
    numbers = {"user": inputs["item"], "context": inputs["context"]}
    fields = _groups(inputs, 1)
    return BlockInputs(inputs["user"], inputs["item"], None, fields, numbers=numbers)


def _run_penalised(layer: Any, inputs: Any, training: bool) -> Any:
    return layer.interact_penalised(inputs["user"], _mixer_inputs(inputs), training=training)


def _run_tokens(layer: Any, inputs: Any, training: bool, sets: int = 1) -> Any:
    return joined_tokens(layer(_groups(inputs, sets)))


def _run_token_by_token(layer: Any, inputs: Any, training: bool) -> Any:
    return layer(_set_by_set(inputs))


_LAYERED: dict[str, Any] = {"units": [4], "scenario_dim": 3}
_EXPERTS: dict[str, Any] = {"expert_units": [4, 3], "task_units": [4]}


def _task_loss() -> TaskLoss:
    """A loss with task weights of its own."""
    return TaskLoss.from_config(
        {"tasks": ["click", "buy"], "weights": [0.25, 2.0], "loss": "bce", "options": {}}
    )


def _foundation_of_own_loss() -> FoundationModel:
    model = FoundationModel(LAYOUT, _DROPPED, _SHARDED, branches=True, seed=3)
    model.task_loss = _task_loss()
    return model


class TwoOptimizers(MMoE):
    """A model whose heads are moved by an optimizer of their own."""

    def optimizers(self, config: OptimizerConfig) -> list[OptimizerPart]:
        """Heads at a tenth of the rates, all else as configured."""
        slow = config.model_copy(update={"dense_learning_rate": config.dense_learning_rate / 10})
        return [OptimizerPart(config), OptimizerPart(slow, "heads", takes=within("task_towers"))]


def _module(**options: Any) -> IsomorphicModule:
    network = options.pop("network", NETWORK)
    return IsomorphicModule(LAYOUT, LAYOUT, network, EMBEDDINGS, seed=2, **options)


LAYERS = [
    Case("ShardedEmbedding", _tables, _ids, _look_up, tables=True),
    Case(
        "ShardedEmbedding of three shards and two sets",
        lambda: _tables(shards=3, sets=2, tables_per_width=2, init="uniform", seed=4),
        _ids,
        _look_up,
        tables=True,
    ),
    Case(
        "ShardedEmbedding of a sequence",
        _tables,
        _ids,
        lambda layer, x, training: layer.sequence("liked", x["bags"]["liked"][0], 2),
        tables=True,
    ),
    Case("Dropout", lambda: Dropout(0.5, seed=1, name="drop"), _numbers((6,))),
    Case("Cross", lambda: Cross(seed=1, name="x"), _numbers((5,), (5,))),
    Case("Cross of rank 2", lambda: Cross(2, seed=1, name="x"), _numbers((5,), (5,))),
    Case("CrossNetwork", lambda: CrossNetwork(2, 2, seed=1), _numbers((5,))),
    Case(
        "DNN",
        lambda: DNN([6, 3], activate_input=True, seed=1, name="deep"),
        _numbers((5,)),
    ),
    Case("FM", lambda: FM(4, seed=1, name="fm"), _numbers((3, 4), (2, 3))),
    Case("IPNN", lambda: IPNN(3, dim=4, seed=1, name="ipnn"), _numbers((3, 4), (2, 3))),
    Case("ExpertMixture", lambda: ExpertMixture(3, [4, 2], 2, seed=1), _numbers((5,))),
    Case(
        "ExpertMixture of gates with hidden units",
        lambda: ExpertMixture(3, [4, 2], 2, gate_units=[3], gate_bias=True, seed=1),
        _numbers((5,)),
    ),
    Case(
        "ExpertMixture of gates that see some experts",
        lambda: ExpertMixture(3, [4], 2, gate_bias=True, sees=_SEES, seed=1),
        _numbers((5,)),
    ),
    Case("ExpertBank", lambda: ExpertBank([0, 0, 0], [4, 2], seed=1), _numbers((5,))),
    Case(
        "ExpertBank of two sets",
        lambda: ExpertBank([1, 0, 1], [4, 2], seed=1),
        _numbers((2, 5)),
        lambda layer, x, training: layer(_set_by_set(x), training=training),
    ),
    Case(
        "GateBank",
        lambda: GateBank(_SEES, units=[4, 3], bias=True, seed=1),
        _numbers((5,), (3, 2)),
    ),
    Case(
        "GateBank over inputs of its own",
        lambda: GateBank(_SEES, seed=1),
        _numbers((2, 5), (3, 2)),
        lambda layer, x, training: layer((_set_by_set(x[0]), x[1]), training=training),
    ),
    Case("ElementGate", lambda: ElementGate(2, seed=1), _numbers((5,), (3, 2))),
    Case("InformationTransfer", lambda: InformationTransfer(seed=1), _numbers((3, 4))),
    Case(
        "ProgressiveExtraction",
        lambda: ProgressiveExtraction(2, 2, 1, 1, [4, 3], seed=1),
        _numbers((5,)),
    ),
    Case(
        "SetExtraction",
        # nothing cut: what is has another gradient than differences, see its own tests
        lambda: SetExtraction(
            2, [0, 1], 1, 1, [4, 3], others="open", strict=False, gate_units=[3], seed=1
        ),
        _numbers((3, 5)),
        lambda layer, x, training: layer(_set_by_set(x), training=training),
    ),
    Case(
        "GroupMixture",
        lambda: GroupMixture(2, [4, 3], 2, gate_units=[3], gate_bias=True, seed=1),
        _numbers((5,), (7,)),
    ),
    Case(
        "SetMixture",
        lambda: SetMixture(3, [4, 2], 2, gate_input="joined", gate_bias=True, seed=1),
        _numbers((3, 5)),
        lambda layer, x, training: layer(_set_by_set(x), training=training),
    ),
    *(
        Case(
            f"TowerBank per {per}",
            lambda per=per: TowerBank([4], 3, 2, per=per, seed=1),
            lambda rows: [_numbers((1, 6))(rows), _head_inputs(6)(rows)[1]],
            _run_heads,
        )
        for per in ("scenario", "both")
    ),
    *(
        Case(
            f"TowerBank per {per} without a shared logit",
            lambda per=per: TowerBank([4], 3, 2, per=per, shared=False, seed=1),
            lambda rows: [_numbers((1, 6))(rows), _head_inputs(6)(rows)[1]],
            _run_heads,
        )
        for per in ("scenario", "both")
    ),
    *(
        Case(
            f"ScenarioChoice, shared {shared}",
            lambda shared=shared: ScenarioChoice(3, shared=shared),
            _head_inputs(3 + shared),
            _run_choice,
        )
        for shared in (False, True)
    ),
    Case(
        "ScenarioEmbedding",
        lambda: ScenarioEmbedding(3, 4, seed=1),
        lambda rows: _head_inputs(1)(rows)[1],
        lambda layer, x, training: layer(x),
    ),
    Case("PartitionedNorm", lambda: PartitionedNorm(3), _head_inputs(5), _run_pair),
    Case("StarNetwork", lambda: StarNetwork([4, 3], 3, 2, seed=1), _head_inputs(5), _run_pair),
    Case("GateUnit", lambda: GateUnit(4, 3, seed=1), _numbers((5,))),
    Case("GatedTowers", lambda: GatedTowers([4, 3], 2, gate_units=3, seed=1), _numbers((5,), (4,))),
    Case(
        "TaskGates",
        lambda: TaskGates(["a", "b"], 2, 3, seed=1),
        lambda rows: (_numbers((5,))(rows), _numbers((4,), (2,))(rows)),
    ),
    *(
        Case(
            f"InteractionBlock, {structure}",
            lambda structure=structure: InteractionBlock(
                _block(structure=structure, mix_dim=3, layers=_LAYERS),
                tasks=["click", "buy"],
                seed=1,
                name="block",
            ),
            _block_inputs,
            _run_block,
        )
        for structure in ("stacked", "parallel", "gated")
    ),
    Case(
        "InteractionBlock of each set",
        lambda: InteractionBlock(_EACH, sets=2, seed=1, name="block"),
        _block_inputs_of_sets,
        _run_block_of_sets,
    ),
    Case("SetMean", lambda: SetMean(2, 4, [3], seed=1), _numbers((5,), (5,))),
    Case("Tower", lambda: Tower([6, 3], seed=1, name="tower"), _numbers((5,))),
    Case(
        "SetTower",
        lambda: SetTower([6, 3], seed=1, name="tower"),
        _numbers((2, 5)),
        lambda layer, x, training: layer(_set_by_set(x)),
    ),
    Case(
        "GroupTower",
        lambda: GroupTower([6, 3], [1, 2], seed=1, name="tower"),
        _numbers((5,), (7,)),
    ),
    Case("Tower without units", lambda: Tower([], name="tower"), _numbers((5,))),
    Case("FieldTokens", lambda: FieldTokens(_TOKENS, 6, seed=1), _block_inputs, _run_tokens),
    Case(
        "FieldTokens of each set",
        lambda: FieldTokens(_TOKENS, 6, sets="each", seed=1),
        _block_inputs_of_sets,
        lambda layer, inputs, training: _run_tokens(layer, inputs, training, sets=2),
    ),
    Case("SlicedTokens", lambda: SlicedTokens(4, 6, seed=1), _block_inputs, _run_tokens),
    Case(
        "NumberTokens",
        lambda: NumberTokens(2, 6, seed=1),
        lambda rows: dict(zip(("user", "item"), _numbers((3,), (1,))(rows), strict=True)),
    ),
    *(
        Case(
            f"GlobalToken, {func}",
            lambda func=func: GlobalToken(func, 6, seed=1),
            _numbers((3, 4), (2, 3)),
        )
        for func in ("mlp", "fm")
    ),
    *(
        Case(
            f"TokenNetwork, {kind}, {experts} experts",
            lambda kind=kind, experts=experts: TokenNetwork(kind, 2, experts=experts, seed=1),
            _numbers((3, 4)),
            _run_token_by_token,
        )
        for kind, experts in (("gelu", 1), ("swiglu", 1), ("swiglu", 2))
    ),
    Case("TokenNorm", lambda: TokenNorm(), _numbers((3, 4)), _run_token_by_token),
    Case("TokenAttention", lambda: TokenAttention(2), _numbers((3, 4)), _run_token_by_token),
    Case("FullMixing", lambda: FullMixing(), _numbers((3, 4)), _run_token_by_token),
    *(
        Case(
            f"MixerBlock, {norm}, {mixing}",
            lambda norm=norm, mixing=mixing: MixerBlock(2, norm=norm, mixing=mixing, seed=1),
            _numbers((2, 4)),
            _run_token_by_token,
        )
        for norm, mixing in (("post", "transpose"), ("pre", "attention"), ("revert", "transpose"))
    ),
    Case(
        "InputTokens",
        lambda: InputTokens(_MIXER, tasks=["a", "b"], seed=1),
        _block_inputs,
        lambda layer, inputs, training: layer(_mixer_inputs(inputs)),
    ),
    Case(
        "Mixer with experts and penalties",
        lambda: Mixer(_PENALISED, seed=1, name="mixer"),
        _block_inputs,
        _run_penalised,
    ),
    Case("Mixer in a block", lambda: InteractionBlock(_MIXED, seed=2), _block_inputs, _run_block),
    Case("TaskTowers", lambda: TaskTowers([4], 3, 2, seed=1), _head_inputs(6), _run_heads),
    Case(
        "TaskTowers without a shared logit",
        lambda: TaskTowers([4], 3, 2, shared=False, seed=1),
        _head_inputs(6),
        _run_heads,
    ),
    Case(
        "TaskTowers of one scenario",
        lambda: TaskTowers([], 0, 2, seed=1),
        _head_inputs(6),
        _run_heads,
    ),
    Case(
        "ScenarioTaskHeads",
        lambda: ScenarioTaskHeads(3, 2, seed=1),
        _head_inputs(6),
        _run_heads,
    ),
    Case(
        "ScenarioTaskHeads without a shared one",
        lambda: ScenarioTaskHeads(3, 2, shared=False, seed=1),
        _head_inputs(6),
        _run_heads,
    ),
    Case("TwoTowers", lambda: TwoTowers(LAYOUT, [6], [3], EMBEDDINGS), _batch, tables=True),
    Case(
        "TwoTowers, set by set",
        lambda: TwoTowers(LAYOUT, [6], [3], _SHARDED),
        _batch,
        lambda layer, batch, training: layer.set_views(batch, training),
        tables=True,
    ),
    Case(
        "TwoTowers, towers of each set",
        lambda: TwoTowers(LAYOUT, [6], [3], _SHARDED, set_groups=[1] * _SHARDED.sets),
        _batch,
        tables=True,
    ),
    Case(
        "TwoTowers, towers of groups of sets",
        lambda: TwoTowers(LAYOUT, [6], [3], _THREE_SETS, set_groups=[1, 2]),
        _batch,
        lambda layer, batch, training: layer.group_towers(batch, training),
        tables=True,
    ),
    Case("Backbone", lambda: Backbone(LAYOUT, NETWORK, EMBEDDINGS), _batch, tables=True),
    Case(
        "MlpStack",
        lambda: MlpStack([4, 3], label="l", seed=1, name="stack"),
        lambda rows: _stored(rows)["UR"],
    ),
    Case("LinearAdapter", lambda: LinearAdapter(["UR", "IR"], dim=3), _stored, _adapt),
    Case("MlpAdapter", lambda: MlpAdapter(["UR", "IR"], units=[4, 3]), _stored, _adapt),
    Case("TokenAdapter", lambda: TokenAdapter(["UR"], units=[4, 3]), _stored, _adapt),
    Case(
        "CrossAdapter",
        lambda: CrossAdapter(["UR", "IR"], dim=3, width=5),
        _stored,
        _adapt,
        looked_up=True,
    ),
    Case(
        "CrossAdapter of one space",
        lambda: CrossAdapter(["UR", "IR"], dim=3, width=None),
        lambda rows: {**_stored(rows), "IR": _stored(rows)["UR"]},
        _adapt,
        looked_up=True,
    ),
    Case("GateAdapter", lambda: GateAdapter(["UR", "IR"]), _stored, _adapt),
    Case("MlpGateAdapter", lambda: MlpGateAdapter(["UR", "IR"], units=[4]), _stored, _adapt),
    Case("FieldGateAdapter", lambda: FieldGateAdapter(["UR"], units=[4]), _stored, _adapt),
    Case(
        "IsomorphicModule",
        lambda: _module(gate=True, head=True, copied=False),
        _batch,
        tables=True,
    ),
    Case(
        "IsomorphicModule of one activation",
        lambda: _module(layer="cross_1"),
        _batch,
        tables=True,
        unread=("dnn_1",),
    ),
]
"""Cases of the layers."""


MODELS = [
    Case("FoundationModel", lambda: FoundationModel(LAYOUT, NETWORK, EMBEDDINGS), _batch),
    Case("FoundationModel with branches, shards and a loss", _foundation_of_own_loss, _batch),
    Case("FoundationModel, gated", lambda: FoundationModel(LAYOUT, _GATED, EMBEDDINGS), _batch),
    Case("MultiEmbedding", lambda: MultiEmbedding(LAYOUT, _OF_SETS, _TWO_SETS, seed=1), _batch),
    Case(
        "MMoE",
        lambda: MMoE(
            LAYOUT,
            NETWORK,
            _SHARDED,
            MMoEConfig(experts=3, expert_units=[4, 3], task_units=[4]),
            seed=1,
        ),
        _batch,
    ),
    Case(
        "SingleTask",
        lambda: SingleTask(LAYOUT, NETWORK, _SHARDED, SingleTaskConfig(**_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "SharedBottom",
        lambda: SharedBottom(LAYOUT, NETWORK, EMBEDDINGS, SharedBottomConfig(**_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "OMoE",
        lambda: OMoE(LAYOUT, NETWORK, EMBEDDINGS, OMoEConfig(experts=3, **_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "PLE",
        lambda: PLE(
            LAYOUT,
            NETWORK,
            EMBEDDINGS,
            PLEConfig(gate_units=[3], gate_bias=True, **_EXPERTS),
            seed=1,
        ),
        _batch,
    ),
    Case(
        "MEMMoE",
        lambda: MEMMoE(LAYOUT, NETWORK, _SHARDED, MEMMoEConfig(experts=2, **_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "MEPLE",
        lambda: MEPLE(LAYOUT, NETWORK, _THREE_SETS, MEPLEConfig(levels=1, **_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "STEM",
        lambda: STEM(LAYOUT, NETWORK, _THREE_SETS, STEMConfig(gate_units=[3], **_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "Crocodile",
        lambda: Crocodile(
            LAYOUT,
            NETWORK,
            _SHARDED,
            CrocodileConfig(experts=2, priors=["user"], mixtures_of=["t1"], **_EXPERTS),
            seed=1,
        ),
        _batch,
    ),
    Case(
        "STEMAL",
        lambda: STEMAL(
            LAYOUT, NETWORK, _SHARDED, STEMALConfig(auxiliary=["buy"], levels=2, **_EXPERTS), seed=1
        ),
        _batch,
    ),
    Case(
        "SDEM",
        lambda: SDEM(
            LAYOUT,
            NETWORK,
            EMBEDDINGS,
            STEMConfig(axis="scenario", levels=2, mixtures_of=["t1"], **_EXPERTS),
            seed=1,
        ),
        _batch,
    ),
    Case(
        "STAR",
        lambda: STAR(LAYOUT, NETWORK, EMBEDDINGS, STARConfig(**_LAYERED), seed=1),
        _batch,
    ),
    Case(
        "PEPNet",
        lambda: PEPNet(
            LAYOUT,
            NETWORK,
            EMBEDDINGS,
            PEPNetConfig(priors=["user", "item", "tags"], gate_units=4, **_LAYERED),
            seed=1,
        ),
        _batch,
    ),
    Case(
        "AME",
        lambda: AME(LAYOUT, NETWORK, _THREE_SETS, AMEConfig(set_groups=[2, 1], **_EXPERTS), seed=1),
        _batch,
    ),
    Case(
        "AME, groups of one",
        lambda: AME(
            LAYOUT, NETWORK, _THREE_SETS, AMEConfig(set_groups=[1, 1, 1], **_EXPERTS), seed=1
        ),
        _batch,
    ),
    *(
        Case(
            f"ESMM, {output}",
            lambda output=output: ESMM(
                LAYOUT,
                NETWORK,
                EMBEDDINGS,
                ESMMConfig(funnel=["click", "buy"], output=output, **_EXPERTS),
                seed=1,
            ),
            _batch,
        )
        for output in ("joint", "conditional")
    ),
    Case(
        "AITM",
        lambda: AITM(
            LAYOUT,
            NETWORK,
            EMBEDDINGS,
            AITMConfig(sequence=["buy", "click"], calibrator=0.5, **_EXPERTS),
            seed=1,
        ),
        _batch,
    ),
    Case("MMoE of two optimizers", lambda: TwoOptimizers(LAYOUT, NETWORK, EMBEDDINGS), _batch),
    Case("DownstreamModel", lambda: DownstreamModel(LAYOUT, NETWORK, EMBEDDINGS), _batch),
    Case(
        "DownstreamModel with transfer",
        lambda: DownstreamModel(
            LAYOUT.only(["user", "item", "tab", "hour"]),
            NETWORK,
            EMBEDDINGS,
            adapters=[
                MlpAdapter(["UR", "IR"], units=[4, 3], dropout=0.5),
                GateAdapter(["UR"]),
                FieldGateAdapter(["IR"], units=[4]),
                CrossAdapter(["UR", "IR"], dim=3, width=5),
            ],
            module=_module(gate=True, head=True),
            task_loss=_task_loss(),
            adapter_l2=0.1,
            seed=4,
        ),
        _batch,
    ),
    Case(
        "Retriever",
        lambda: Retriever(
            LAYOUT.without(["tab", "hour"]), [6], 3, EMBEDDINGS, item_counts=_COUNTS, seed=1
        ),
        _batch,
    ),
    Case(
        "ProjectedRetriever",
        lambda: ProjectedRetriever("UR", 3, item_counts=_COUNTS, loss="bce", task=1, seed=1),
        _batch,
    ),
]
"""Cases of the models."""
