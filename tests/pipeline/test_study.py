"""`train.py tune` on the small ads run."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lfm4ads_tf.config import Chosen, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline.auto import prepared_search
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stages import Selection
from lfm4ads_tf.pipeline.study import StudyOptions, run_study, shown, study_of
from lfm4ads_tf.tuning.settings import Settings
from lfm4ads_tf.tuning.trials import Trials


def tune(
    run: Run, config: Path | None = None, selection: Selection | None = None, **options: Any
) -> str:
    text = io.StringIO()
    given = ["upstream.training.checkpoint_every=500"]
    data = run.out.parent / "files"
    spec = run.out.parent / "spec.yaml"
    console = Console(file=text, width=200)
    run_study(
        StudyOptions(**options),
        run,
        spec=spec,
        data_dir=data,
        console=console,
        assignments=given,
        config=config,
        selection=selection,
    )
    return text.getvalue()


@pytest.mark.slow
def test_a_study_goes_on_and_its_file_is_the_best_trial(
    ads_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ads_run()
    seen: list[Any] = []
    original = Trials.__call__

    def counted(self: Trials, settings: Settings, kind: Any, fraction: float) -> Any:
        held = set(self.rows) | set(self.held) | set(self.auxiliary)
        assert not held & {*run.cache.rows_of("valid"), *run.cache.rows_of("test")}
        seen.append((settings, kind, fraction))
        return original(self, settings, kind, fraction)

    monkeypatch.setattr(Trials, "__call__", counted)
    run.choose(Chosen(upstream={"batch_size": 64, "table_learning_rate": 0.25}))
    tune(run, trials=2)
    assert len(seen) == 2
    assert (seen[0][0].batch_size, seen[0][0].table_learning_rate) == (64, 0.25)
    assert {s.dense_learning_rate for s, _, _ in seen} == {0.01}  # given
    assert {(kind, fraction) for _, kind, fraction in seen} == {("chain", 1.0)}

    text = tune(run, trials=3)
    assert len(seen) == 3
    path = run.out / "tuning" / "upstream.yaml"
    assert "Best trials of the upstream" in text
    command = shlex.split(text.partition("use them: ")[2])
    assert command[command.index("--config") + 1] == str(path)
    assert command[command.index("--set") + 1] == "upstream.training.checkpoint_every=500"
    prepared = prepared_search(run)
    best = study_of(run, prepared, None, path.with_suffix(".db")).trials[0]
    again = resolve(run.out.parent / "spec.yaml", config_path=path).config.upstream
    assert Settings.of(again) == best.settings
    assert not again.training.auto
    assert again.network == run.resolved.config.upstream.network
    assert f"{best.value:.4f}" in path.read_text("utf-8")


@pytest.mark.slow
def test_a_dropout_comes_with_its_layers(ads_run: Callable[..., Run]) -> None:
    layers = "[{type: cross, depth: 1}, {type: dnn, units: [4]}]"
    run = ads_run(f"downstream.network.block.layers={layers}")
    tune(run, trials=1, part="downstream", scenario="t1")
    path = run.out / "tuning" / "downstream_t1.yaml"
    assert set(yaml.safe_load(path.read_text("utf-8"))) == {"downstream"}
    found = resolve(run.out.parent / "spec.yaml", config_path=path).config.downstream
    assert found.network == run.resolved.config.downstream.network
    assert not found.training.auto and found.training.optimizer.dense_learning_rate == 0.01


@pytest.mark.slow
def test_the_command_makes_the_run_that_was_tuned(
    ads_run: Callable[..., Run], tmp_path: Path
) -> None:
    """The user's own file goes into the best settings', and what was selected is said again."""
    given = tmp_path / "mine.yaml"
    given.write_text(
        "budget: 90s\n"
        "scenarios: [t1, 010]\n"  # a text, though YAML has a number for it
        "upstream: {training: {task_weights: {click: 1e0}}}\n"
        "downstream: {network: {block: {layers: [{type: dnn, units: [4]}]}}}\n",
        "utf-8",
    )
    selection = Selection(seed=3, budget="45s")
    run = ads_run(config=given, options=selection.options())
    text = tune(run, given, selection, trials=1)
    words = shlex.split(text.partition("use them: ")[2])
    assert words.count("--config") == 1
    assert words[words.index("--seed") + 1] == "3" and words[words.index("--budget") + 1] == "45s"
    path = Path(words[words.index("--config") + 1])
    made = resolve(
        Path(words[words.index("--spec") + 1]), [], selection.options(), config_path=path
    )
    tuned = Settings.of(made.config.upstream)
    before = run.resolved.config
    assert made.config.model_copy(update={"upstream": before.upstream}) == before
    assert not made.config.upstream.training.auto
    assert made.config.upstream.training.task_weights == {"click": 1.0}
    assert (
        tuned.apply(before.upstream).training.optimizer == made.config.upstream.training.optimizer
    )
    # What the file left to a search is still left to it.
    assert "downstream.network.block.layers.dropout" not in made.given
    assert made.fixed("downstream") == run.resolved.fixed("downstream")


@pytest.mark.parametrize(
    ("value", "text"),
    [(4096, "4096"), (1048576, "1048576"), (0.0123456, "0.0123456"), (0.5, "0.5")],
)
def test_a_setting_is_shown_with_its_digits(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "upstraem"}, "Did you mean 'upstream'?"),
        ({"scenario": "t0"}, "The upstream has no scenario"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"timeout": "soon"}, "The timeout is no duration"),
    ],
)
def test_wrong_options_are_one_message(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        StudyOptions(**options).check()
    assert message in str(error.value)


def test_an_unknown_scenario_is_refused(ads_run: Callable[..., Run], tmp_path: Path) -> None:
    run = ads_run()
    with pytest.raises(UserError, match="The scenario 't9' is unknown"):
        tune(run, part="downstream", scenario="t9")
    assert not (run.out / "tuning").exists()
