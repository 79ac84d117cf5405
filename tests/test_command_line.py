"""Which options each command takes."""

from __future__ import annotations

import pytest
import typer

from lfm4ads_tf.command_line import STAGES, app

COMMON = {
    "--spec", "--data-dir", "--out", "--config", "--set", "--seed", "--seeds", "--scenarios",
    "--methods", "--budget", "--cluster", "--task", "--overwrite", "--quiet",
}  # fmt: skip
TRAINING = ("run", "pretrain", "transfer", "retrieve")


@pytest.mark.parametrize("name", ["run", *STAGES])
def test_every_stage_takes_the_options_of_a_run(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert options - {"--help"} == COMMON | ({"--resume-from"} if name in TRAINING else set())
