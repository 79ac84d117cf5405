"""A user's interaction layer: what it is given, and how its weights are carried over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.columns import Carried
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.interactions.registry import INTERACTIONS
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.candidate_towers import CandidateTowers
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.optim.variable_paths import path_of
from lfm4ads_tf.strict import parse
from tests.rounding import assert_close
from tests.small_models import embeddings, layout, make_batch

__all__ = ["embeddings", "layout", "make_batch"]

Batch = dict[str, Any]


class ReaderConfig(LayerConfig):
    type: Literal["reader"] = "reader"
    feature: str = "history"
    length: int = 2


class Reader(InteractionLayer):
    """y = [v_item; sum_l h_l; sum over sets of the user's fields of width 4] * w."""

    Config = ReaderConfig

    @classmethod
    def create(cls, config: ReaderConfig, *, seed: int, name: str) -> Self:
        layer = cls(name=name)
        layer.feature = config.feature
        return layer

    @classmethod
    def activation_names(cls, config: ReaderConfig, name: str) -> list[str]:
        return [name]

    @classmethod
    def sequence_lengths(cls, config: ReaderConfig) -> Mapping[str, int]:
        return {config.feature: config.length}

    def build_scale(self, width: int) -> None:
        self.scale = self.add_weight(name="scale", shape=(width,), initializer="ones")

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        (group,) = (g for g in inputs.fields if "item" in g.names)
        values, mask = inputs.sequences[self.feature]
        counted = tf.reduce_sum(values * tf.cast(mask, tf.float32)[:, :, None, None], axis=[1, 2])
        user = tf.reduce_sum(group.per_set()[:, : group.owners.count("user")], axis=[1, 2])
        joined = tf.concat([group.named("item"), counted, user], axis=-1)
        if not hasattr(self, "scale"):
            self.build_scale(int(joined.shape[-1]))
        output = joined * self.scale
        return {self.name: output}, output


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with INTERACTIONS.added("reader", Reader):
        yield


def backbone(layout: FeatureLayout, sets: int = 2, **options: Any) -> Backbone:
    block = {"layers": [{"type": "reader", **options}]}
    network = parse(NetworkConfig, {"block": block}, source="network")
    return Backbone(layout, network, EmbeddingsConfig(dim=4, sets=sets, init_scale=0.5), seed=1)


def test_it_reads_fields_by_name_and_owner_their_sets_and_sequences(
    layout: FeatureLayout, make_batch: Callable[..., Batch]
) -> None:
    model, batch = backbone(layout), make_batch()
    _, output = model.interact(model.towers(batch))
    table = {name: model.embeddings.read_table(name) for name in ("user", "item")}
    items = batch["ids"][:, [f.name for f in layout.single].index("item")].numpy()
    item = table["item"][items].reshape(12, -1)  # -1, a missing id, reads the last row
    history = batch["bags"]["history"][0]
    last = [row.numpy()[-2:] for row in history]
    counted = np.stack([table["item"][ids].sum(axis=(0, 1)) for ids in last])
    users = batch["ids"][:, 0].numpy()
    bags = np.stack(
        [table["item"][r.numpy()].mean(axis=0) if len(r) else np.zeros((2, 4)) for r in history]
    )
    user = table["user"][users].sum(axis=1) + bags.sum(axis=1)
    assert_close(output, np.concatenate([item, counted, user], axis=1), terms=16)


def test_with_a_block_of_each_set_it_reads_that_set_alone(
    layout: FeatureLayout, make_batch: Callable[..., Batch]
) -> None:
    block = {"layers": [{"type": "reader"}], "sets": "each"}
    network = parse(NetworkConfig, {"block": block}, source="network")
    model, batch = Backbone(layout, network, EmbeddingsConfig(dim=4, sets=2), seed=1), make_batch()
    activations, _ = model.interact(model.towers(batch))
    table = {name: model.embeddings.read_table(name) for name in ("user", "item")}
    items = batch["ids"][:, [f.name for f in layout.single].index("item")].numpy()
    users = batch["ids"][:, 0].numpy()
    rows = [row.numpy() for row in batch["bags"]["history"][0]]
    for k in range(2):
        items_of, users_of = table["item"][:, k], table["user"][:, k]  # (rows + 1, D)
        counted = np.stack([items_of[ids[-2:]].sum(axis=0) for ids in rows])
        bags = np.stack([items_of[ids].mean(axis=0) if len(ids) else np.zeros(4) for ids in rows])
        parts = [items_of[items], counted, users_of[users] + bags]
        assert_close(activations[f"set_{k}"], np.concatenate(parts, axis=1), terms=16)


def test_two_layers_of_a_type_have_weights_of_their_own_names(
    layout: FeatureLayout, make_batch: Callable[..., Batch]
) -> None:
    """Slots are found by these names; those of the package's layers are in older checkpoints."""
    ours = [{"type": "fm", "dim": 4}, {"type": "cross", "depth": 1}, {"type": "dnn", "units": [5]}]
    block = {"layers": [{"type": "reader"}, {"type": "reader", "name": "other"}, *ours]}
    network = parse(NetworkConfig, {"block": {**block, "structure": "parallel"}}, source="network")
    model = Backbone(layout, network, EmbeddingsConfig(dim=4, sets=2), seed=1)
    model.interact(model.towers(make_batch()))
    weights = [path_of(v).removeprefix("block/") for v in model.block.trainable_variables]
    assert weights == [
        "reader/scale",
        "other/scale",
        *(f"fm/project_{width}/kernel" for width in (6, 8)),  # 4 is its own
        *(f"cross_1/kernel/{part}" for part in ("kernel", "bias")),
        *(f"dnn/dnn_1/{part}" for part in ("kernel", "bias")),
    ]


def test_a_ranking_gives_it_what_rows_of_one_user_do(
    layout: FeatureLayout, make_batch: Callable[..., Batch]
) -> None:
    model, batch = backbone(layout), make_batch()
    model.interact(model.towers(batch))
    first = {
        "ids": batch["ids"][:1],
        "bags": {n: (i[:1], None if w is None else w[:1]) for n, (i, w) in batch["bags"].items()},
        "dense": batch["dense"][:1],
    }
    user_ids = [k for k, f in enumerate(layout.single) if f.owner == "user"]
    ids = batch["ids"].numpy()
    ids[:, user_ids] = ids[0, user_ids]
    rows = {**batch, "ids": tf.constant(ids)}
    rows["bags"] = {
        **batch["bags"],
        "history": (tf.gather(batch["bags"]["history"][0], tf.zeros(12, tf.int32)), None),
    }
    columns = layout.dense_columns("user")
    dense = batch["dense"].numpy()
    dense[:, columns] = dense[0, columns]
    rows["dense"] = tf.constant(dense)
    ranked = model.interact(CandidateTowers(model)(first, batch))
    whole = model.interact(model.towers(rows))
    for name, value in whole[0].items():
        assert_close(ranked[0][name], value, terms=16, what=name)


def test_a_feature_that_is_no_sequence_is_refused(
    layout: FeatureLayout, make_batch: Callable[..., Batch]
) -> None:
    model = backbone(layout, feature="tags_")
    with pytest.raises(UserError, match="'tags_', which is no multi-valued .* 'tags'"):
        model.towers(make_batch())


def test_weights_are_carried_over_where_the_shapes_are_the_same(
    layout: FeatureLayout, make_batch: Callable[..., Batch]
) -> None:
    source, target, other = backbone(layout), backbone(layout), backbone(layout, sets=1)
    for model in (source, target, other):
        model.interact(model.towers(make_batch()))
    (layer,) = source.block._stack
    layer.scale.assign(np.arange(layer.scale.shape[0], dtype=np.float32))
    labels = source.stream_labels()
    carried = Carried()
    columns = source.block.carry(target.block, (labels, labels), ["reader"], carried)
    assert np.array_equal(target.block._stack[0].scale, layer.scale)
    assert list(carried.layers) == ["reader"]
    assert columns[0] == columns[1] == [("reader", j) for j in range(layer.scale.shape[0])]
    with pytest.raises(UserError, match="define Reader.carry"):
        source.block.carry(other.block, (labels, labels), ["reader"], Carried())
