from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.config import Resolved, RunConfig, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.registry import INTERACTIONS
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.strict import parse
from tests.interactions.test_layer import Reader
from tests.small_models import LAYOUT

SPEC: dict[str, Any] = {
    "name": "tiny",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "u", "item": "i", "time": "t"},
    "tasks": {"click": "click"},
    "split": {"by": "day", "train_until": 3, "valid_until": 5},
    "features": {
        "u": {"owner": "user", "kind": "hashed"},
        "i": {"owner": "item", "kind": "hashed"},
    },
    "run": {"embeddings": {"dim": 8}, "upstream": {"training": {"batch_size": 64}}},
}


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    return write(tmp_path, SPEC)


def write(folder: Path, spec: dict[str, Any]) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def test_assignments_reach_the_configuration_and_the_spec(spec_path: Path) -> None:
    found = resolve(
        spec_path,
        [
            "downstream.training.optimizer.clip_norm=0.5",
            "split.train_until=2",
            "features.u.buckets=77",
            "downstream.methods=[none, feature/linear/UR]",
            "scenarios=null",
        ],
        {"seed": 4, "seeds": 2},
    )
    assert found.config.downstream.training.optimizer.clip_norm == 0.5
    assert found.config.downstream.methods == ["none", "feature/linear/UR"]
    assert found.spec.split.train_until == 2  # type: ignore[union-attr]
    assert found.spec.features["u"].buckets == 77  # type: ignore[union-attr]
    assert found.config.all_seeds == [4, 5]
    # What nobody named keeps the spec's value, or the default.
    assert found.config.upstream.training.batch_size == 64
    assert found.config.downstream.training == RunConfig().downstream.training.model_copy(
        update={"optimizer": found.config.downstream.training.optimizer}
    )


def test_a_part_given_by_halves_keeps_its_own_defaults(spec_path: Path) -> None:
    config = resolve(spec_path).config
    assert config.upstream.training.schedule == "chain"
    assert config.retrieval.training.epochs == RunConfig().retrieval.training.epochs


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("embedings.shards=4", "unknown key 'embedings'. Did you mean 'embeddings'?"),
        ("embeddings.shard=4", "Did you mean 'shards'?"),
        ("upstream.training.batchsize=4", "Did you mean 'batch_size'?"),
        ("split.train_untill=4", "Did you mean 'train_until'?"),
        ("features.u.bucket=4", "Did you mean 'buckets'?"),
        ("upstream.training.batch_size=0", "upstream.training.batch_size"),
        ("upstream.training.batch_size=many", "upstream.training.batch_size"),
        ("upstream.network.block.layers=[{type: crossed}]", "Did you mean 'cross'?"),
        ("preset=public", "The preset 'public' is unknown"),
        ("preset=public_experimant", "Did you mean 'public_experiment'?"),
        ("seed", "--set needs the form key.path=value"),
        ("=3", "--set needs the form key.path=value"),
        ("seed=[1", "is not YAML"),
    ],
)
def test_bad_assignments_are_one_clear_message(
    spec_path: Path, assignment: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        resolve(spec_path, [assignment])
    assert message in str(error.value)


def test_embeddings_shorthand_reaches_every_part(spec_path: Path) -> None:
    config = resolve(spec_path, ["embeddings.shards=3"]).config
    for part in (config.upstream, config.downstream, config.retrieval):
        assert part.embeddings.shards == 3
        assert part.embeddings.dim == 8


def test_a_parts_own_key_goes_before_the_shorthand(tmp_path: Path, spec_path: Path) -> None:
    config = resolve(spec_path, ["upstream.embeddings.dim=32"]).config
    assert (config.upstream.embeddings.dim, config.downstream.embeddings.dim) == (32, 8)
    config = resolve(spec_path, ["embeddings.dim=4", "retrieval.embeddings.dim=2"]).config
    assert (config.upstream.embeddings.dim, config.retrieval.embeddings.dim) == (4, 2)
    own = {**SPEC, "run": {**SPEC["run"], "downstream": {"embeddings": {"dim": 5}}}}
    config = resolve(write(tmp_path, own)).config
    assert (config.upstream.embeddings.dim, config.downstream.embeddings.dim) == (8, 5)
    # The user's shorthand goes before what the spec says of one part.
    assert resolve(write(tmp_path, own), ["embeddings.dim=6"]).config.downstream.embeddings.dim == 6


def test_an_upstream_has_the_sets_that_it_wants_unless_they_are_given(tmp_path: Path) -> None:
    two = {**SPEC, "tasks": {"click": "click", "like": "like"}}
    own, path = "upstream.model=single_task", write(tmp_path, two)

    def sets(*assignments: str) -> tuple[int, int]:
        config = resolve(path, assignments).config
        return config.upstream.embeddings.sets, config.downstream.embeddings.sets

    assert sets() == sets("upstream.model=mmoe") == (1, 1)
    assert sets(own) == (2, 1)
    assert sets(own, "tasks.share=share") == (3, 1)
    assert sets("upstream.embeddings.sets=3") == (3, 1)
    assert sets("embeddings.sets=2", own) == (2, 2)
    with pytest.raises(UserError, match="set upstream.embeddings.sets=2"):
        resolve(path, [own, "embeddings.sets=1"])
    write(tmp_path, {**two, "run": {"upstream": {"embeddings": {"sets": 1}}}})
    with pytest.raises(UserError, match="set upstream.embeddings.sets=2"):
        resolve(path, [own])


def test_preset_lies_under_the_spec_and_the_user(tmp_path: Path) -> None:
    bare = {**SPEC, "run": {"preset": "public_experiment"}}
    config = resolve(write(tmp_path, bare)).config
    for part in (config.upstream, config.downstream):
        assert part.embeddings.dim == 10
        assert part.network.shared_head is False
        cross, dnn = part.network.block.layers
        assert cross.depth == 3 and cross.rank is None  # type: ignore[union-attr]
        assert dnn.units == [360, 360] and dnn.activate_input  # type: ignore[union-attr]
    both = {**SPEC, "run": {"preset": "public_experiment", "embeddings": {"dim": 12}}}
    assert resolve(write(tmp_path, both)).config.upstream.embeddings.dim == 12
    found = resolve(write(tmp_path, SPEC), ["preset=public_experiment", "embeddings.dim=3"])
    assert found.config.upstream.embeddings.dim == 3


def test_the_priors_of_pepnet_are_the_specs_keys_where_these_are_features(tmp_path: Path) -> None:
    keys = {**SPEC["keys"], "scenario": "tab"}
    features = {**SPEC["features"], "age": {"owner": "user", "kind": "numeric"}}
    spec = {**SPEC, "keys": keys, "features": features}
    chosen = ["upstream.model=pepnet"]

    def priors(spec: dict[str, Any], *given: str) -> Any:
        config = resolve(write(tmp_path, spec), [*chosen, *given]).config.upstream
        return config.model_dump(mode="json")["pepnet"]["priors"]

    assert priors(spec) == ["u", "i"]
    renamed = {"who": {"owner": "user", "kind": "hashed", "column": "u"}, "i": features["i"]}
    assert priors({**spec, "features": renamed}) == ["who", "i"]
    assert priors({**spec, "features": renamed}, "upstream.pepnet.priors=[i]") == ["i"]
    with pytest.raises(UserError, match="'hwo', which is no embedded.*Did you mean 'who'"):
        priors({**spec, "features": renamed}, "upstream.pepnet.priors=[hwo]")
    with pytest.raises(UserError, match="'age', which is no embedded feature"):
        priors(spec, "upstream.pepnet.priors=[age]")
    with pytest.raises(UserError, match="PEPNet has no prior feature"):
        priors({**spec, "keys": {**keys, "user": "x", "item": "y"}})


def test_the_preset_of_stem_has_the_sizes_and_the_training_of_the_released_code(
    tmp_path: Path,
) -> None:
    """The numbers of its configuration for three tasks; the spec's own are below the preset."""
    three = {**SPEC, "tasks": {"click": "click", "like": "like", "share": "share"}}
    config = resolve(write(tmp_path, three), ["preset=stem_released"]).config
    assert (config.upstream.embeddings.sets, config.upstream.embeddings.dim) == (4, 16)
    training, optimizer = config.upstream.training, config.upstream.training.optimizer
    assert not training.auto and training.schedule == "epochs"
    assert (training.batch_size, training.patience, training.min_gain) == (4096, 1, 0)
    assert optimizer.rule == "adam" and not training.task_weights
    assert optimizer.table_learning_rate == optimizer.dense_learning_rate == 1e-3
    assert (optimizer.table_l2, optimizer.clip_norm) == (1e-6, 10)
    layout = replace(LAYOUT, tasks=tuple(three["tasks"]))
    model: Any = build.upstream(layout, config, seed=0)
    assert not model.backbone.user_tower.layers and not model.backbone.item_tower.layers
    (experts,), (gates,) = model.experts.experts, model.experts.gates
    assert [experts.kernel.shape[-1], *(k.shape[-1] for k, _ in experts.deeper)] == [512] * 3
    count = 3 * 1 + 8  # own experts of each task, then the shared ones
    assert experts.kernel.shape[0] == count and gates.kernel.shape == (3, 64, count)
    assert [k.shape[-1] for k, _ in gates.hidden] == [128, 64] and gates.bias is not None
    assert [k.shape[-1] for k, _ in model.heads.layers] == [128, 64]


def test_resolved_yaml_reads_back_equal(spec_path: Path) -> None:
    found = resolve(spec_path, ["preset=public_experiment"])
    again = parse(Resolved, yaml.safe_load(found.to_yaml()), source="config.yaml")
    assert again == found


@pytest.mark.parametrize("part", ["upstream", "downstream"])
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("task_weights={clic: 2}", "unknown task 'clic'"),
        ("loss_options={gamma: 2}", "'bce' has no option 'gamma'"),
    ],
)
def test_a_loss_that_cannot_be_made_is_refused_when_it_is_read(
    spec_path: Path, part: str, assignment: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resolve(spec_path, [f"{part}.training.{assignment}"])


@pytest.mark.parametrize("part", ["upstream", "downstream"])
def test_a_layer_that_reads_no_sequence_is_refused_when_it_is_read(
    tmp_path: Path, part: str
) -> None:
    words = {"owner": "item", "kind": "multi", "buckets": 10}
    spec = write(tmp_path, {**SPEC, "features": {**SPEC["features"], "words": words}})
    with INTERACTIONS.added("reader", Reader):
        for feature, told in (("words", None), ("word", "'word', which is no .*'words'")):
            layers = f"{part}.network.block.layers=[{{type: reader, feature: {feature}}}]"
            if told is None:
                resolve(spec, [layers])
                continue
            with pytest.raises(UserError, match=f"of the {part} reads the values of {told}"):
                resolve(spec, [layers])
