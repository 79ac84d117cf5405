"""The printed command resolves to the configuration it was made from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.analysis.command import command
from lfm4ads_tf.config import Chosen, Resolved, resolve
from lfm4ads_tf.features.spec_file import load_spec

SPECS = Path(__file__).resolve().parents[2] / "feature_specs"


def _parsed(text: str) -> tuple[Path, list[str]]:
    """The spec and the assignments of a command."""
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    spec = words[words.index("--spec") + 1]
    return SPECS.parent / spec, [words[k + 1] for k, w in enumerate(words) if w == "--set"]


@pytest.mark.parametrize("name", sorted(p.stem for p in SPECS.glob("*.yaml")))
@pytest.mark.parametrize(
    "assignments",
    [
        (),
        ("seeds=3", "downstream.methods=[none, 'feature/linear/UR']", "scenarios=['a b', \"c'd\"]"),
        (
            "embeddings.shards=4",
            "upstream.training.task_weights={TASK: 2}",  # the spec's first task
            "thresholds.cold_item=9",
        ),
        ("preset=public_experiment", "upstream.training.batch_size=77"),
        ("upstream.training.optimizer.weight_decay=0.0", "budget=1m"),  # given, though the default
        (
            "upstream.network.block.layers=[{type: dnn, units: [4]}]",
            "downstream.network.block.layers=[{type: dnn, units: [4], dropout: 0.0}]",
        ),
    ],
)
def test_command_makes_the_same_run(name: str, assignments: tuple[str, ...]) -> None:
    task = load_spec(SPECS / f"{name}.yaml").task_names[0]
    assignments = tuple(assignment.replace("TASK", task) for assignment in assignments)
    resolved = resolve(SPECS / f"{name}.yaml", assignments)
    path, found = _parsed(command(resolved))
    assert path == SPECS / f"{name}.yaml"
    again = resolve(path, found)
    assert (again.config, again.given) == (resolved.config, resolved.given)
    assert again.spec.model_copy(update={"run": {}}) == resolved.spec.model_copy(update={"run": {}})
    if not assignments:
        assert found == []


def test_foreign_spec_is_taken_from_the_configuration(tmp_path: Path) -> None:
    document = yaml.safe_load((SPECS / "synthetic.yaml").read_text("utf-8"))
    document |= {"name": "mine", "dataset": None, "dataset_options": {}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document), "utf-8")
    resolved: Resolved = resolve(tmp_path / "mine.yaml", ["seeds=2", "upstream.training.passes=3"])
    text = command(resolved)
    assert "--spec spec.yaml" in text and "--data-dir DIR" in text

    # what the note says to do
    stored = yaml.safe_load(resolved.to_yaml())
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(stored["spec"]), "utf-8")
    again = resolve(tmp_path / "spec.yaml", _parsed(text)[1])
    assert (again.config, again.given) == (resolved.config, resolved.given)


def test_what_a_search_chose_is_searched_again() -> None:
    resolved = resolve(SPECS / "synthetic.yaml", ["budget=1m"])
    chosen = Chosen(upstream={"batch_size": 64}, downstream={"feed": {"batch_size": 32}})
    assert command(resolved.model_copy(update={"chosen": chosen})) == command(resolved)
    assert "budget" in command(resolved)


def test_what_assignments_cannot_express_is_taken_from_the_configuration(tmp_path: Path) -> None:
    """A key of a mapping that a spec gives cannot be taken away by an assignment."""
    path = SPECS / "synthetic.yaml"
    resolved = resolve(path, ["upstream.training.task_weights={click: 2}"])
    upstream: dict[str, Any] = {"batch_size": 64, "table_learning_rate": 0.3, "dropout": 0.2}
    shop: dict[str, Any] = {"batch_size": 32, "weight_decay": 0.5, "dropout": 0.1}
    chosen = Chosen(upstream=upstream | {"final_passes": 3}, downstream={"shop": shop, "a,b": shop})
    resolved = resolved.model_copy(update={"chosen": chosen})
    document = yaml.safe_load(path.read_text("utf-8"))
    training = document["run"]["upstream"].setdefault("training", {})
    training["task_weights"] = {"conversion": 2}
    other = resolve(_written(tmp_path / "other.yaml", document))
    mixed = resolved.model_copy(update={"spec": other.spec})
    text = command(mixed.model_copy(update={"spec": mixed.spec.model_copy(update={"name": "x"})}))
    assert "as its key `run`" in text
    stored = yaml.safe_load(resolved.to_yaml())
    again = resolve(
        _written(tmp_path / "spec.yaml", stored["spec"] | {"run": stored["config"]}),
        _parsed(text)[1],
    ).config
    assert _searched(again.upstream) == _searched(resolved.upstream())
    assert _searched(again.downstream) == _searched(resolved.downstream("shop"))
    assert again.upstream.training.task_weights == {"click": 2}
    assert again.upstream.training.batch_size == 64 and again.downstream.training.batch_size == 32
    assert not again.upstream.training.auto and not again.downstream.training.auto

    # Settings that differ by scenario are said, those of each with its names.
    further = Chosen(upstream=upstream, downstream={**chosen.downstream, "feed": {"batch_size": 8}})
    mixed = mixed.model_copy(update={"chosen": further})
    text = command(mixed.model_copy(update={"spec": mixed.spec.model_copy(update={"name": "x"})}))
    lines = [shlex.split(line[1:]) for line in text.splitlines() if "--scenarios" in line]
    assert [line[:2] for line in lines] == [["--scenarios", 'shop,"a,b"'], ["--scenarios", "feed"]]
    assert "downstream.training.batch_size=8" in lines[1]
    found = [words[k + 1] for words in lines[:1] for k, w in enumerate(words) if w == "--set"]
    document = stored["spec"] | {"run": stored["config"]}
    again = resolve(_written(tmp_path / "spec.yaml", document), [*_parsed(text)[1], *found]).config
    assert _searched(again.downstream) == _searched(resolved.downstream("shop"))


def _searched(part: Any) -> Any:
    """A part of a configuration, as if its settings had been given."""
    training = part.training.model_copy(update={"auto": False})
    return part.model_copy(update={"training": training})


def _written(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path
