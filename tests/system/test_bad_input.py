"""What a user can mend: exit code 2, one clear message, nothing half-written."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import shutil
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml

FORMS = Path(__file__).resolve().parents[2] / "feature_specs"


class Case:
    """A small log of its own, a spec that a test may spoil, and the command on both."""

    def __init__(self, cli: Callable[..., Any], folder: Path, spec: str, rows: Any) -> None:
        self.cli = cli
        self.folder = folder
        self.spec: dict[str, Any] = yaml.safe_load(spec)
        self.rows: list[list[str]] = [list(r) for r in rows]
        self.columns: list[str] = []
        self.out = folder / "out"

    def column(self, name: str) -> int:
        return self.columns.index(name)

    def write(self) -> None:
        with (self.folder / "shop.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([self.columns, *self.rows])

    def run(self, command: str, *options: object) -> Any:
        (self.folder / "spec.yaml").write_text(yaml.safe_dump(self.spec, sort_keys=False))
        return self.cli(
            command, "--spec", self.folder / "spec.yaml", "--data-dir", self.folder,
            "--out", self.out, "--quiet", *options,
        )  # fmt: skip

    def refused(self, *expected: str, command: str = "prepare", options: Any = ()) -> str:
        """Runs a command, checks the refusal, and returns the message."""
        outcome = self.run(command, *options)
        assert outcome.code == 2, outcome.text
        assert "Traceback" not in outcome.text
        assert outcome.err.count("Error:") == 1
        message = " ".join(outcome.err.split())
        for text in expected:
            assert text in message, message
        # Nothing but the resolved configuration and the log may lie in the run folder.
        left = {p.name for p in self.out.iterdir()} if self.out.is_dir() else set()
        assert left <= {"config.yaml", "log.txt"}
        return message


@pytest.fixture
def case(
    cli: Callable[..., Any],
    shop_module: dict[str, Any],
    shop_yaml: str,
    shop_rows: list[list[str]],
    tmp_path: Path,
) -> Case:
    made = Case(cli, tmp_path, shop_yaml, shop_rows)
    made.columns = shop_module["COLUMNS"].split(",")
    made.write()
    return made


@pytest.fixture(scope="module")
def shop_rows(shop_module: dict[str, Any]) -> list[list[str]]:
    found: list[list[str]] = shop_module["shop_rows"](rows=700)
    return found


def test_the_unspoilt_case_is_accepted(case: Case) -> None:
    assert case.run("prepare").code == 0


# -- the spec and the options ---------------------------------------------------------------------


def test_an_unknown_key_of_the_spec(case: Case) -> None:
    case.spec["features"]["price"]["transfrom"] = case.spec["features"]["price"].pop("transform")
    case.refused("features.price.transfrom: unknown key", "Did you mean 'transform'?")


def test_an_unknown_kind(case: Case) -> None:
    case.spec["features"]["price"]["kind"] = "numerical"
    case.refused("Did you mean 'numeric'?", "features.price.kind")


def test_an_item_column_in_a_user_feature(case: Case) -> None:
    case.spec["features"]["category"]["owner"] = "user"
    case.refused("Feature 'category' is owned by the user but reads 'category'")


def test_an_unknown_key_in_an_assignment(case: Case) -> None:
    case.refused("Did you mean 'upstream'?", options=["--set", "upsteam.training.passes=2"])
    message = case.refused(options=["--set", "upstream.training.batchsize=2"])
    assert "upstream.training.batchsize: unknown key. Did you mean 'batch_size'?" in message


def test_an_assignment_without_a_value(case: Case) -> None:
    case.refused("key.path=value", options=["--set", "embeddings.shards"])


def test_a_budget_that_is_no_duration(case: Case) -> None:
    case.refused("The budget is no duration above zero", "5m", options=["--budget", "soon"])


@pytest.mark.parametrize("key", ["epochs=3", "patience=2"])
def test_a_key_that_the_schedule_does_not_read(case: Case, key: str) -> None:
    case.refused(
        f"upstream.training.{key.partition('=')[0]} contradicts the schedule",
        "upstream.training.schedule: chain",
        options=["--set", f"upstream.training.{key}"],
    )
    case.refused(
        "downstream.training.final_passes contradicts the schedule",
        "downstream.training.auto=false",
        options=["--set", "downstream.training.final_passes=3"],
    )


def test_a_budget_too_short_for_one_trial(case: Case) -> None:
    outcome = case.run("run", "--budget", "5s")
    assert outcome.code == 2 and outcome.err.count("Error:") == 1, outcome.text
    message = " ".join(outcome.err.split())
    for text in ("too short for one trial", "budget: 5s", "upstream.training.auto=false"):
        assert text in message, message
    assert not (case.out / "upstream").exists()  # refused before anything is trained


def test_tune_without_its_library(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    case.refused("`tune` needs Optuna", "lfm4ads-tf[tune]", command="tune")
    assert not case.out.exists()


def test_wrong_options_of_tune(case: Case) -> None:
    case.refused("Did you mean 'upstream'?", command="tune", options=["--part", "upstraem"])
    case.refused("The timeout is no duration", command="tune", options=["--timeout", "later"])
    case.refused("The budget is no duration", command="tune", options=["--budget", "soon"])


def test_a_spec_that_is_not_there_or_not_yaml(case: Case, cli: Callable[..., Any]) -> None:
    missing = cli("prepare", "--spec", case.folder / "nothing.yaml", "--out", case.out)
    assert missing.code == 2 and "cannot be read" in missing.err
    broken = case.folder / "broken.yaml"
    broken.write_text("name: [")
    assert cli("prepare", "--spec", broken, "--out", case.out).code == 2
    assert not case.out.exists()


def test_an_unknown_method(case: Case) -> None:
    case.refused("Did you mean 'linear'?", options=["--methods", "none,feature/liner/UR"])
    case.refused("CR_user@cross_9", options=["--methods", "feature/mlp/CR_user@cross_9"])


def test_wrong_options_of_a_loss_and_of_update_rules(case: Case) -> None:
    given = {
        "upstream.training.loss_options={gamma: 2}": "The loss 'bce' has no option 'gamma'.",
        "downstream.training.task_weights={clik: 2}": "unknown task 'clik'",
        "retrieval.projection.optimizer.rule_options={initiall: 2}": "initiall",
    }
    for assignment, told in given.items():
        case.refused(told, options=["--set", assignment])
    assert not case.out.exists()


def test_an_unknown_command_and_an_unknown_option(cli: Callable[..., Any]) -> None:
    for arguments in (["pretrian"], ["prepare", "--output", "x"], ["prepare", "--seeds", "many"]):
        outcome = cli(*arguments)
        assert outcome.code == 2 and "Error:" in outcome.err and "Traceback" not in outcome.text


def test_brackets_in_a_message_are_printed_as_they_are(case: Case) -> None:
    case.refused("[/bold]", options=["--methods", "feature/linear/[/bold]"])


def test_seeds_below_one(case: Case) -> None:
    case.refused("seeds", options=["--seeds", "0"])


def test_names_that_only_exports_would_miss(case: Case) -> None:
    case.spec["features"]["UR"] = case.spec["features"].pop("position") | {"column": "position"}
    case.refused("The feature 'UR' and the representation 'UR' cannot be told apart")
    case.spec["features"]["position"] = case.spec["features"].pop("UR")
    case.spec["features"]["age_group"]["column"] = "exclude"
    case.spec["log"]["user_columns"] = ["exclude", "city"]
    case.refused("The column 'exclude' cannot be told apart", "retrieval.enabled=false")


def test_a_scenario_called_as_the_results_over_all_rows(case: Case) -> None:
    for row in case.rows[::5]:
        row[case.column("surface")] = "all"
    case.write()
    case.refused("No scenario can be called 'all'", "140 rows with 'all' in column 'surface'")


# -- the files ------------------------------------------------------------------------------------


def test_a_missing_file(case: Case) -> None:
    case.spec["log"]["files"] = ["shopp.csv"]
    case.refused("No file matches 'shopp.csv'", str(case.folder))


def test_a_missing_data_folder(case: Case, cli: Callable[..., Any]) -> None:
    arguments = ["prepare", "--spec", case.folder / "spec.yaml", "--out", case.out]
    case.run("nothing")  # writes the spec
    outcome = cli(*arguments)
    assert outcome.code == 2 and "--data-dir" in outcome.err
    outcome = cli(*arguments, "--data-dir", case.folder / "elsewhere")
    assert outcome.code == 2 and "does not exist" in outcome.err


def test_a_missing_column(case: Case) -> None:
    case.spec["features"]["categry"] = case.spec["features"].pop("category")
    del case.spec["features"]["city_category"]
    case.refused("'categry'", "Did you mean 'category'?")


@pytest.mark.parametrize("key", ["user", "time", "scenario"])
def test_a_missing_key_column(case: Case, key: str) -> None:
    case.spec["keys"][key] = "absent"
    case.refused("Column 'absent' is missing")


def test_a_text_in_a_numeric_column_names_its_row(case: Case) -> None:
    case.rows[122][case.column("price")] = "cheap"
    case.write()
    case.refused("Column 'price' is not a number in data row 123", "'cheap'")


def test_a_label_as_time_names_both_places(case: Case) -> None:
    case.refused(
        "`keys.time` names the column 'clicked'", "`tasks.click`",
        options=["--set", "keys.time=clicked"],
    )  # fmt: skip


def test_a_cell_that_is_no_time_has_a_mend_that_can_be_followed(case: Case) -> None:
    case.rows[122][case.column("timestamp")] = "5 January 2026"
    case.write()
    message = case.refused("Column 'timestamp' is neither a number nor a date or time in data row")
    assert "data row 123" in message and "2026-01-05T10:00:00" in message
    assert "text" not in message
    case.rows[122][case.column("timestamp")] = "2026-01-05"
    case.write()
    case.refused("Column 'timestamp' mixes numbers with dates or times", "data row 123")


def test_dates_against_a_column_of_numbers(case: Case) -> None:
    dates = ["--set", "split.train_until=2026-01-06", "--set", "split.valid_until='2026-01-07'"]
    case.refused("compares the column 'day', which holds numbers, with dates", options=dates)
    case.refused("train_until (2026-01-06) and valid_until (20260107)", options=dates[:2])


def test_what_is_accepted_is_told_with_numbers(case: Case) -> None:
    """A random fold, and a test split of one class."""
    case.columns.append("fold")
    rng = np.random.default_rng(0)
    for row in case.rows:
        row.append(str(rng.integers(0, 5)))
        row[case.column("ordered")] = "0" if row[-1] == "4" else row[case.column("ordered")]
    case.write()
    case.spec["split"] = {"by": "fold", "train_until": 3, "valid_until": 4}
    outcome = case.run("prepare")
    assert outcome.code == 0, outcome.text
    assert outcome.log.count("not point in time (") == 1
    test_rows = sum(row[-1] == "4" for row in case.rows)
    assert f"task 'order': all {test_rows} known labels of the test split are 0" in outcome.log
    manifest = json.loads((case.out / "data" / "manifest.json").read_text())
    assert set(manifest["point_in_time"].values()) == {False}


def test_a_label_that_is_not_binary(case: Case) -> None:
    case.rows[5][case.column("clicked")] = "3"
    case.write()
    case.refused("label column 'clicked'", "Received: 3", "positive_at_least")


@pytest.mark.parametrize("value", ["", "nan", "0", "1"])
def test_labels_of_one_class_or_none(case: Case, value: str) -> None:
    for row in case.rows:
        row[case.column("clicked")] = value
    case.write()
    case.refused("Task 'click' has one class in the whole training split", "'clicked'")


def test_a_key_without_a_value(case: Case) -> None:
    case.rows[9][case.column("user_id")] = ""
    case.write()
    case.refused("key column 'user_id' is empty in data row 10 of ")


def test_an_empty_split(case: Case) -> None:
    case.refused(
        "The valid split is empty", "20260101", "20260107",
        options=["--set", "split.train_until=20260106.2", "--set", "split.valid_until=20260106.5"],
    )  # fmt: skip
    case.refused("The train split is empty", options=["--set", "split.train_until=20250101"])
    case.refused(
        "The test split is empty",
        options=["--set", "split.valid_until=20270101"],
    )
    # What the message advises works in the same folder, for nothing was made in it yet.
    case.refused("must be below", options=["--set", "split.train_until=20270101"])


def test_a_truncated_gzip(case: Case) -> None:
    case.spec["log"]["files"] = ["shop.csv.gz"]
    whole = gzip.compress((case.folder / "shop.csv").read_bytes())
    (case.folder / "shop.csv.gz").write_bytes(whole[: len(whole) // 2])
    case.refused("shop.csv.gz' is truncated or corrupt")


def test_a_truncated_tfrecord(case: Case) -> None:
    case.spec["log"]["files"] = ["shop.tfrecord"]
    path = case.folder / "shop.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in case.rows:
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in zip(case.columns, row, strict=True)
                if value
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    path.write_bytes(path.read_bytes()[:-7])
    case.refused("truncated or corrupt", "shop.tfrecord")


def test_a_file_of_an_unknown_format(case: Case) -> None:
    case.spec["log"]["files"] = ["shop.xlsx"]
    (case.folder / "shop.xlsx").write_bytes(b"PK")
    case.refused("format of", "unknown", ".parquet")


# -- the output folder ----------------------------------------------------------------------------


def test_an_output_folder_that_is_a_file(case: Case) -> None:
    case.out.write_text("mine")
    outcome = case.run("prepare")
    assert outcome.code == 2 and "cannot be written" in outcome.err
    assert case.out.read_text() == "mine"
    case.out = case.out / "below"
    outcome = case.run("prepare")
    assert outcome.code == 2 and "cannot be written" in outcome.err


@pytest.mark.parametrize("where", ["numpy.save", "pyarrow.parquet.write_table"])
def test_a_full_disk(case: Case, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, full)
    case.refused("cannot be written", "No space left on device", "free space")
    monkeypatch.undo()
    assert case.run("prepare").code == 0  # the same command goes on afterwards


@pytest.mark.slow
def test_a_full_disk_while_training(
    case: Case, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert case.run("prepare", *small).code == 0

    def full(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", full)
        outcome = case.run("pretrain", *small)
    assert outcome.code == 2, outcome.text
    assert "cannot be written" in outcome.err and "Traceback" not in outcome.text
    assert not (case.out / "upstream" / "seed_0" / "results.json").exists()


# -- scenarios ------------------------------------------------------------------------------------


def _one_class_mail(case: Case) -> None:
    for row in case.rows:
        if row[case.column("surface")] == "mail":
            row[case.column("ordered")] = "0"
    case.write()


def test_scenarios_asked_for_by_name(case: Case, small: list[str]) -> None:
    _one_class_mail(case)
    assert case.run("prepare", *small).code == 0
    unknown = case.run("run", *small, "--scenarios", "hom")
    assert unknown.code == 2 and "Did you mean 'home'?" in unknown.err
    one_class = case.run("run", *small, "--scenarios", "home,mail")
    assert one_class.code == 2 and "The scenario 'mail' cannot be trained" in one_class.err
    assert "task 'order' has one class" in one_class.err
    assert not (case.out / "upstream").exists()  # refused before anything is trained


@pytest.mark.slow
def test_a_one_class_scenario_is_skipped_with_a_warning(case: Case, small: list[str]) -> None:
    case.rows = [row for row in case.rows if row[case.column("surface")] != "home"]
    _one_class_mail(case)
    few = ["--methods", "none", *small, "--set", "downstream.min_rows=5"]
    few += ["--set", "downstream.training.epochs=1", "--set", "upstream.training.passes=1"]
    for stage in ("prepare", "pretrain", "transfer"):
        outcome = case.run(stage, *few)
        assert outcome.code == 0, outcome.text
    assert outcome.log.count("scenario 'mail' is skipped") == 1
    assert not (case.out / "downstream" / "mail").exists()
    assert (case.out / "downstream" / "search").exists()


# -- data sets that must be fetched ---------------------------------------------------------------


def test_no_network(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setenv("LFM4ADS_CACHE", str(tmp_path / "cache"))
    outcome = cli("run", "--spec", FORMS / "kuairand.yaml", "--out", tmp_path / "out", "--quiet")
    assert outcome.code == 2 and "Traceback" not in outcome.text
    message = " ".join(outcome.err.split())
    assert "Network is unreachable" in message
    assert "--data-dir" in message and "synthetic" in message
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert not (tmp_path / "out" / "data").exists()


def test_an_unknown_option_of_a_data_set(cli: Callable[..., Any], tmp_path: Path) -> None:
    outcome = cli(
        "prepare", "--spec", FORMS / "synthetic.yaml", "--out", tmp_path / "out",
        "--set", "dataset_options.row=10",
    )  # fmt: skip
    assert outcome.code == 2 and "Did you mean 'rows'?" in outcome.err


# -- the process ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_keras_3_bound_before_the_import(python: Callable[..., Any], tmp_path: Path) -> None:
    done = python(
        "import os, sys; os.environ.pop('TF_USE_LEGACY_KERAS', None)\n"
        "import tensorflow as tf; tf.keras.__version__\n"
        "sys.argv = ['train.py', 'prepare', '--out', sys.argv[1]]\n"
        "import runpy; runpy.run_path('train.py', run_name='__main__')\n",
        tmp_path / "out",
    )
    assert done.returncode == 2, done.stderr
    assert "Keras 3 is already bound" in done.stderr and "TF_USE_LEGACY_KERAS=1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_exit_codes_of_a_real_process(python: Callable[..., Any], tmp_path: Path) -> None:
    run = "import runpy; runpy.run_path('train.py', run_name='__main__')"
    done = python(
        run, "predict", "--out", tmp_path, "--model", "m", "--input", "x", "--output", "y"
    )
    assert done.returncode == 2 and "is no run folder" in done.stderr
    assert "Traceback" not in done.stderr
    helped = python(run, "--help")
    assert helped.returncode == 0 and "pretrain" in helped.stdout
    assert np.all([command in helped.stdout for command in ("extract", "transfer", "predict")])


def upstream_of(name: str, **options: object) -> list[str]:
    """Options that take another upstream."""
    settings = {"upstream.model": name, **{f"upstream.{name}.{k}": v for k, v in options.items()}}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("command", ["prepare", "run"])
def test_a_funnel_of_a_task_that_the_spec_lacks(case: Case, command: str) -> None:
    options = upstream_of("esmm", funnel="[click, purchase]")
    message = case.refused("unknown task 'purchase'", command=command, options=options)
    assert "use two of click, order" in message
    assert not case.out.exists()


@pytest.mark.parametrize("command", ["prepare", "run"])
def test_what_is_no_funnel_is_refused_before_it_is_encoded(case: Case, command: str) -> None:
    """Orders follow clicks, and clicks do not follow orders; nothing is kept that would bind."""
    day, click, order = (case.column(name) for name in ("day", "clicked", "ordered"))
    train = [row for row in case.rows if int(row[day]) < 20260106]
    without = sum(row[click] == "1" and row[order] == "0" for row in train)
    message = case.refused(
        "'order' and 'click' are no funnel: click is 1 where order is 0",
        f"{without:,} of {len(train):,} training rows",
        "upstream.esmm.strict_funnel=false",
        command=command,
        options=upstream_of("esmm", funnel="[order, click]"),
    )
    assert message.count("Fix:") == 1
    if command == "prepare":  # the folder takes the mended command
        done = case.run(
            command, *upstream_of("esmm", funnel="[order, click]", strict_funnel="false")
        )
        assert done.code == 0 and (case.out / "data" / "manifest.json").exists(), done.text


def test_a_funnel_is_told_before_any_stage_on_data_that_are_there(case: Case) -> None:
    """Data of another upstream's folder, copied: the labels are looked at once more."""
    done = case.run("prepare")
    assert done.code == 0, done.text
    data = case.folder / "encoded"
    shutil.move(case.out / "data", data)
    shutil.rmtree(case.out)
    case.out.mkdir()
    shutil.move(data, case.out / "data")
    done = case.run("run", *upstream_of("esmm", funnel="[order, click]"))
    assert done.code == 2 and "are no funnel" in done.text, done.text
    assert {p.name for p in case.out.iterdir()} == {"config.yaml", "log.txt", "data"}


@pytest.mark.parametrize(
    ("name", "options"), [("ple", {}), ("aitm", {}), ("esmm", {"funnel": "[click, click]"})]
)
def test_fewer_than_two_tasks(case: Case, name: str, options: dict[str, str]) -> None:
    case.spec["tasks"] = {"click": case.spec["tasks"]["click"]}
    message = case.refused("needs 2 tasks", options=upstream_of(name, **options))
    assert message.count("Fix:") == 1 and not case.out.exists()


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe"])
def test_a_task_without_a_positive_in_training(case: Case, name: str) -> None:
    day, order = case.column("day"), case.column("ordered")
    for row in case.rows:
        if int(row[day]) < 20260106:
            row[order] = "0"
    case.write()
    case.refused("Task 'order' has one class", "only 0", options=upstream_of(name))
