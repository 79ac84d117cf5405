"""Where and how a run is computed does not make it another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.config import Resolved, RunConfig, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.pipeline.run import Run


@pytest.fixture
def made(ads_spec: dict[str, Any], tmp_path: Path) -> Path:
    """A run folder in which something was made, and its spec beside it."""
    out = tmp_path / "out"
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(ads_spec), "utf-8")
    Run(out, resolve(tmp_path / "spec.yaml")).begin()
    (out / "data").mkdir()
    return out


def _again(out: Path, *assignments: str) -> Run:
    return Run(out, resolve(out.parent / "spec.yaml", assignments))


@pytest.mark.parametrize(
    "assignment",
    [
        "cluster.steps_per_call=2",
        "cluster.stall_s=1.5",
        "embeddings.shards=3",
        "upstream.embeddings.shards=3",
        "downstream.embeddings.shards=3",
        "retrieval.embeddings.shards=3",
    ],
)
def test_a_folder_is_accepted_on_another_cluster(made: Path, assignment: str) -> None:
    _again(made, assignment).begin()  # written anew with the value
    written = yaml.safe_load((made / "config.yaml").read_text("utf-8"))["config"]
    section, *keys = assignment.partition("=")[0].split(".")
    part = written[section]
    for key in keys:
        part = part[key]
    assert part == yaml.safe_load(assignment.partition("=")[2])
    _again(made)
    with pytest.raises(UserError, match="upstream.embeddings.dim was 16, is now 8"):
        _again(made, assignment, "upstream.embeddings.dim=8")


def test_a_folder_from_before_the_section_is_accepted(made: Path) -> None:
    path = made / "config.yaml"
    written = yaml.safe_load(path.read_text("utf-8"))
    assert written["config"].pop("cluster") == {"steps_per_call": 8, "stall_s": 300.0}
    path.write_text(yaml.safe_dump(written), "utf-8")
    _again(made, "cluster.steps_per_call=1")


def test_the_logs_of_running_processes_are_nothing_made(made: Path) -> None:
    """The launcher's folder makes no OUT a run's, and `--overwrite` leaves it."""
    (made / "cluster").mkdir()
    (made / "cluster" / "chief_0.log").write_text("line")
    other = resolve(made.parent / "spec.yaml", ["upstream.embeddings.dim=8"])
    with pytest.raises(UserError, match="another configuration"):
        Run(made, other)
    Run(made, other, overwrite=True).begin()
    assert {p.name for p in made.iterdir()} == {"cluster", "config.yaml", "log.txt"}
    assert (made / "cluster" / "chief_0.log").read_text() == "line"
    _again(made).begin()  # nothing was made in between: it belongs to no configuration


@pytest.mark.parametrize(
    "given",
    [{"steps_per_call": 0}, {"stall_s": 0}, {"steps_per_cal": 4}],
)
def test_what_the_section_refuses(ads_spec: dict[str, Any], given: dict[str, Any]) -> None:
    (key,) = given
    with pytest.raises(ValueError, match=key):
        Resolved(spec=parse_spec(ads_spec), config=RunConfig(cluster=given))  # type: ignore[arg-type]
