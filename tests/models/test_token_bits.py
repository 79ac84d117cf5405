"""Tokens keep their bits: elsewhere, later, beside an added field, and in an export."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.interactions.columns import Carried
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.token_pieces import joined_tokens
from lfm4ads_tf.interactions.tokens import FieldTokens
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.checkpoints import read_weights, write_weights
from tests.small_models import EMBEDDINGS, LAYOUT, random_batch

pytestmark = pytest.mark.processor

ROOT = Path(__file__).resolve().parents[2]
ROWS = 12
OPTIONS: dict[str, Any] = {"order": "permuted", "permutation": 7, "sets": "each", "norm": "pre"}
CHILD = """
import sys
import numpy as np
import tensorflow as tf

if sys.argv[1] == "export":
    model = tf.saved_model.load(sys.argv[2])
    given = dict(np.load(sys.argv[3]))
    found = model.tokens(**{name: tf.constant(value) for name, value in given.items()}).numpy()
    assert "lfm4ads_tf" not in sys.modules
else:
    from tests.models.test_token_bits import tokens, upstream
    from tests.small_models import random_batch
    found = tokens(upstream(), random_batch(12)).numpy()
np.save(sys.argv[-1], found)
"""


def upstream(layout: FeatureLayout = LAYOUT, seed: int = 3, **options: Any) -> FoundationModel:
    layer = {"type": "mixer", "tokens": 3, "head_dim": 4, "depth": 1, **OPTIONS, **options}
    sizes = parse(NetworkConfig, {"block": {"layers": [layer]}}, source="network")
    model = FoundationModel(layout, sizes, EMBEDDINGS.model_copy(update={"sets": 2}), seed=seed)
    model(random_batch(ROWS) if layout is LAYOUT else with_more(random_batch(ROWS)))
    return model


def mixer_of(model: FoundationModel) -> Any:
    return model.backbone.block._stack[0]


def tokens(model: FoundationModel, batch: Any) -> tf.Tensor:
    inputs = model.backbone._block_inputs(model.backbone.towers(batch))
    return mixer_of(model).tokens(inputs, tf.constant(ROWS))


# --- an added field

MORE = replace(
    LAYOUT,
    fields=(*LAYOUT.fields, IdField("more", "context", "more")),
    tables=(*LAYOUT.tables, TableField("more", 9)),
)


def with_more(batch: Any) -> Any:
    ids = np.random.default_rng(8).integers(0, 9, (len(batch["ids"]), 1))
    return {**batch, "ids": tf.concat([batch["ids"], ids], axis=1)}


@pytest.mark.parametrize("rows", [1, 2, 6, 33, 100])
@pytest.mark.parametrize("groups", [[["f0", "f1"], ["f2"]], [["f0"], ["f1"], ["f2"]]])
def test_a_field_that_joins_a_group_changes_no_bit_of_another(
    rows: int, groups: list[list[str]]
) -> None:
    """Whatever its matrix library makes of the largest group, or of how many there are."""
    rng = np.random.default_rng(rows)
    values = rng.normal(size=(rows, 6, 5)).astype(np.float32)
    read = [name for group in groups for name in group]

    def made(groups: list[list[str]], names: list[str]) -> tuple[FieldTokens, tf.Tensor]:
        layer = FieldTokens(groups, 12, seed=1)
        given = [FieldGroup(tf.constant(values[:, : len(names)]), names, ["user"] * len(names))]
        return layer, joined_tokens(layer(given))

    before, expected = made(groups, read)
    grown = [[*groups[0], "f3", "f4", "f5"], *groups[1:]]
    after, _ = made(grown, [*read, "f3", "f4", "f5"])
    before.carry(after)
    names = [*read, "f3", "f4", "f5"]
    found = joined_tokens(after([FieldGroup(tf.constant(values), names, ["user"] * 6)]))
    assert np.array_equal(found[1:], expected[1:])
    alone, of_one = made([groups[1]], groups[1])  # nor the lack of all other groups
    values = values[:, [read.index(name) for name in groups[1]]]
    alone.kernels["5"].assign(tf.gather(before.kernels["5"], [read.index(n) for n in groups[1]]))
    alone.bias.assign(before.bias[1:2])
    names = groups[1]
    given = FieldGroup(tf.constant(values), names, ["user"] * len(names))
    assert np.array_equal(joined_tokens(alone([given]))[0], expected[1])


def test_a_model_keeps_its_tokens_beside_an_added_feature(randomize: Callable[..., None]) -> None:
    model, batch = upstream(), random_batch(ROWS)
    randomize(model)
    settled = mixer_of(model).field_groups
    smallest = min(settled, key=lambda name: len(settled[name]))
    groups = {**settled, smallest: [*settled[smallest], "more"]}
    grown = upstream(MORE, seed=9, groups=groups)
    transplant(model.backbone.embeddings, grown.backbone.embeddings)
    mixer_of(model).carry(mixer_of(grown), ([], []), ["mixer_1"], Carried())
    before, after = tokens(model, batch), tokens(grown, with_more(batch))
    joined = list(settled).index(smallest)
    kept = [n for n in range(len(before)) if n not in (joined, joined + 3)]
    assert len(kept) == len(before) - 2  # both sets' tokens of the group
    assert np.array_equal(tf.gather(before, kept), tf.gather(after, kept))
    rows = mixer_of(grown).input_tokens.fields
    for k in (0, 1):
        assert not rows.kernels["4"].numpy()[rows._plan.rows["4"][f"more#{k}"]].any()


# --- later, and elsewhere


def test_after_a_restart_the_tokens_are_the_same(
    tmp_path: Path, randomize: Callable[..., None]
) -> None:
    model, again, batch = upstream(), upstream(seed=5), random_batch(ROWS)
    randomize(model)
    write_weights(model, tmp_path / "weights")
    read_weights(again, tmp_path / "weights")
    assert np.array_equal(tokens(model, batch), tokens(again, batch))
    assert ModelParts(model).field_groups == ModelParts(again).field_groups


def test_weights_of_other_groups_are_refused_though_they_have_the_same_sizes(
    tmp_path: Path,
) -> None:
    """Another permutation of the fields leaves the shapes of all weights as they are."""
    model, other = upstream(), upstream(permutation=8)
    shapes = [{p: v.shape for p, v in ModelParts(m).dense.items()} for m in (model, other)]
    assert shapes[0] == shapes[1]
    write_weights(model, tmp_path / "weights")
    with pytest.raises(UserError, match="of other groups of fields") as refused:
        read_weights(other, tmp_path / "weights")
    assert "permutation" in str(refused.value)
    (tmp_path / "weights/tables/field_groups.json").unlink()  # of an earlier version
    read_weights(other, tmp_path / "weights")


@pytest.mark.slow
def test_another_process_and_an_export_make_the_same_tokens(tmp_path: Path) -> None:
    model, batch = upstream(), random_batch(ROWS)
    expected = tokens(model, batch).numpy()
    towers = model.backbone.towers(batch)
    inputs = model.backbone._block_inputs(towers)
    given = {f"fields_{g.width}": g.values for g in inputs.fields} | dict(inputs.numbers)

    class Exported(tf.Module):
        @tf.function
        def tokens(self, **given: tf.Tensor) -> tf.Tensor:
            fields = [replace(g, values=given[f"fields_{g.width}"]) for g in inputs.fields]
            numbers = {owner: given[owner] for owner in inputs.numbers}
            read = replace(inputs, fields=fields, numbers=numbers)
            return mixer_of(model).tokens(read, tf.constant(ROWS))

    exported = Exported()
    exported.held = mixer_of(model).variables
    specs = {name: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for name, v in given.items()}
    function = exported.tokens.get_concrete_function(**specs)
    tf.saved_model.save(exported, str(tmp_path / "export"), signatures={"tokens": function})
    np.savez(tmp_path / "given.npz", **{name: value.numpy() for name, value in given.items()})
    child = tmp_path / "child.py"
    child.write_text(CHILD, "utf-8")
    for kind in ("export", "model"):
        made = tmp_path / f"{kind}.npy"
        told = [kind, tmp_path / "export", tmp_path / "given.npz", made]
        subprocess.run(
            [sys.executable, str(child), *map(str, told)],
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert np.array_equal(np.load(made), expected), kind
