"""The printed command resolves to the configuration it was made from."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from lfm4ads_tf.analysis.command import command
from lfm4ads_tf.config import Resolved, resolve

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
        ("embeddings.shards=4", "upstream.training.task_weights={x: 2}", "thresholds.cold_item=9"),
        ("preset=public_experiment", "upstream.training.batch_size=77"),
    ],
)
def test_command_makes_the_same_run(name: str, assignments: tuple[str, ...]) -> None:
    resolved = resolve(SPECS / f"{name}.yaml", assignments)
    path, found = _parsed(command(resolved))
    assert path == SPECS / f"{name}.yaml"
    again = resolve(path, found)
    assert again.config == resolved.config
    assert again.spec.model_copy(update={"run": {}}) == resolved.spec.model_copy(update={"run": {}})
    if not assignments:
        assert found == []


def test_foreign_spec_is_taken_from_the_configuration(tmp_path: Path) -> None:
    document = yaml.safe_load((SPECS / "synthetic.yaml").read_text("utf-8"))
    document |= {"name": "mine", "dataset": None, "dataset_options": {}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document), "utf-8")
    resolved: Resolved = resolve(tmp_path / "mine.yaml", ["seeds=2"])
    text = command(resolved)
    assert "--spec spec.yaml" in text and "--data-dir DIR" in text

    # what the note says to do
    stored = yaml.safe_load(resolved.to_yaml())
    spec = stored["spec"] | {"run": stored["config"]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    assert resolve(tmp_path / "spec.yaml").config == resolved.config
