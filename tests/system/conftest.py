"""Whole runs of the command line on the small shop log of docs/data.md."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train
from tests.made_once import made_once
from tests.quick_proof import quick_proof
from tests.system.shop_runs import Outcome, Refreshed, Shop

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
_BLOCK = "[{type: fm, dim: 4}, {type: cross, depth: 1}, {type: dnn, units: [8]}]"


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _run_cli(*arguments: object) -> Outcome:
    """Runs `train.py` in this process."""
    before = sys.argv
    sys.argv = ["train.py", *map(str, arguments)]
    out, err, lines = io.StringIO(), io.StringIO(), _Lines()
    logger = logging.getLogger("lfm4ads_tf")
    logger.addHandler(lines)
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            train.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
        logger.removeHandler(lines)
    return Outcome(code, out.getvalue(), err.getvalue(), "\n".join(lines.lines))


@pytest.fixture(scope="session")
def cli() -> Callable[..., Outcome]:
    """`cli(*arguments)`: `train.py` in this process."""
    return _run_cli


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Settings that make every training take seconds."""
    settings = {
        "embeddings.dim": 4,
        "upstream.training.auto": "false",
        "downstream.training.auto": "false",
        "upstream.network.user_tower": "[8]",
        "upstream.network.item_tower": "[8]",
        "upstream.network.block.layers": _BLOCK,
        "upstream.training.batch_size": 64,
        "upstream.training.passes": 2,
        "upstream.training.optimizer.dense_learning_rate": 0.005,
        "downstream.network.block.layers": _BLOCK,
        "downstream.training.batch_size": 128,
        "downstream.training.epochs": 2,
        "retrieval.training.batch_size": 256,
        "retrieval.training.epochs": 1,
        "retrieval.k": 10,
    }
    return [part for k, v in settings.items() for part in ("--set", f"{k}={v}")] + ["--quiet"]


@pytest.fixture(scope="session", autouse=True)
def download_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generated data sets stay inside the tests' folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LFM4ADS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shop_module() -> dict[str, Any]:
    """The functions of the worked example's script."""
    return runpy.run_path(str(HERE / "worked_example" / "shop_log.py"))


@pytest.fixture(scope="session")
def shop_yaml() -> str:
    """The worked example's feature spec, as docs/data.md shows it."""
    text = (ROOT / "docs" / "data.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(# shop\.yaml\n.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.fixture(scope="session")
def make_shop(
    tmp_path_factory: pytest.TempPathFactory, shop_module: dict[str, Any], shop_yaml: str
) -> Callable[..., Shop]:
    """`make_shop(rows, folder)`: the worked example with its own or other rows, for two methods."""
    quick = shop_yaml.replace("downstream: {", "downstream: {methods: [none, feature/linear/UR], ")
    assert quick != shop_yaml

    def make(rows: list[list[str]] | None = None, folder: Path | None = None) -> Shop:
        folder = folder or tmp_path_factory.mktemp("shop")
        shop_module["write_shop"](folder, rows)
        (folder / "shop.yaml").write_text(quick, "utf-8")
        return Shop(folder, folder / "shop.yaml")

    return make


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, make_shop: Callable[..., Shop]) -> Shop:
    """The worked example; tests do not change it."""
    return made_once(tmp_path_factory, "shop", lambda folder: make_shop(folder=folder))


@pytest.fixture(scope="session")
def shop_arguments(shop: Shop, small: list[str]) -> list[str]:
    """Options of the run behind `shop_run`, without `--out`."""
    return ["--spec", str(shop.spec), "--data-dir", str(shop.folder), *small]


@pytest.fixture(scope="session")
def shop_run(
    tmp_path_factory: pytest.TempPathFactory, shop_arguments: list[str]
) -> tuple[Path, Outcome]:
    """One whole run: two seeds, one scenario, two methods; tests only read it.

    Of its exports the ranker is proven as users' exports are.
    """

    def make(folder: Path) -> tuple[Path, Outcome]:
        options = ["--out", folder / "run", "--seeds", 2, "--scenarios", "home"]
        with quick_proof(but=["ranker_home"]):
            outcome = _run_cli("run", *shop_arguments, *options)
        assert outcome.code == 0, outcome.text
        return folder / "run", outcome

    return made_once(tmp_path_factory, "shop_run", make)


@pytest.fixture(scope="session")
def shop_metrics(shop_run: tuple[Path, Outcome]) -> dict[str, Any]:
    """`metrics.json` of `shop_run`."""
    found: dict[str, Any] = json.loads((shop_run[0] / "metrics.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python(code, *arguments)`: a script in a process of its own, in the project's folder."""

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def entry_key() -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """What identifies an entry of `metrics.json`."""

    def key(entry: dict[str, Any]) -> tuple[Any, ...]:
        names = ("stage", "scenario", "task", "method", "slice", "refresh", "seed", "split")
        return tuple(entry[n] for n in names)

    return key


@pytest.fixture(scope="session")
def assert_same_metrics(
    entry_key: Callable[[dict[str, Any]], tuple[Any, ...]],
) -> Callable[..., None]:
    """`assert_same_metrics(ours, theirs, tolerance)`: every entry of ours is in theirs, equal."""

    def check(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-6) -> None:
        known = {entry_key(e): e for e in theirs["results"]}
        assert ours["results"]
        for entry in ours["results"]:
            other = known[entry_key(entry)]
            assert entry["rows"] == other["rows"]
            assert entry["metrics"].keys() == other["metrics"].keys()
            for name, value in entry["metrics"].items():
                if value is None or other["metrics"][name] is None:
                    assert value is None and other["metrics"][name] is None, (entry, other)
                else:
                    assert abs(value - other["metrics"][name]) <= tolerance, (name, entry, other)

    return check


@pytest.fixture(scope="session")
def tensors() -> Callable[[Path], dict[str, Any]]:
    """`tensors(prefix)`: every tensor of a checkpoint by name, but the checkpoint's own count."""
    import tensorflow as tf

    def read(prefix: Path) -> dict[str, Any]:
        reader = tf.train.load_checkpoint(str(prefix))
        names = reader.get_variable_to_shape_map()
        skipped = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/.ATTRIBUTES/VARIABLE_VALUE")
        found = {n: reader.get_tensor(n) for n in names if n not in skipped}
        # the tables lie beside the dense variables, see lfm4ads_tf.embeddings.storage
        for folder in (prefix.parent / "tables", prefix.with_name(f"{prefix.name}.tables")):
            for path in sorted(folder.rglob("*.npy")):
                found[path.relative_to(folder).as_posix()] = np.load(path)
        return found

    return read


@pytest.fixture(scope="session")
def refreshed(
    tmp_path_factory: pytest.TempPathFactory,
    shop_module: dict[str, Any],
    shop_yaml: str,
    small: list[str],
) -> Refreshed:
    """A run of five days with its second version; tests change copies of it."""
    return made_once(
        tmp_path_factory, "refresh", lambda folder: _refresh(folder, shop_module, shop_yaml, small)
    )


def _refresh(
    folder: Path, shop_module: dict[str, Any], shop_yaml: str, small: list[str]
) -> Refreshed:
    columns = shop_module["COLUMNS"].split(",")
    rows = shop_module["shop_rows"](2000)
    day = [int(row[columns.index("day")]) % 100 for row in rows]
    days = {}
    for name, wanted in {0: range(1, 6), 6: [6], 7: [7]}.items():
        (folder / f"day{name}").mkdir()
        days[name] = folder / f"day{name}"
        with (days[name] / "shop.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(
                [columns, *[r for r, d in zip(rows, day, strict=True) if d in wanted]]
            )
    spec = shop_yaml.replace("20260106", "20260104").replace("20260107", "20260105")
    (folder / "shop.yaml").write_text(spec, "utf-8")
    options = ["--spec", str(folder / "shop.yaml"), *small, "--scenarios", "home"]
    options += ["--set", "downstream.min_rows=50", "--set", "retrieval.methods=[model/IR*UR]"]
    options += ["--set", "upstream.training.checkpoint_every=3"]
    out = folder / "run"
    data = ["--data-dir", str(days.pop(0))]
    for stage in ("prepare", "pretrain", "extract", "transfer", "retrieve"):
        done = _run_cli(stage, *options, *(data if stage == "prepare" else []), "--out", out)
        assert done.code == 0, done.text
    before = Refreshed.digests(out)
    done = _run_cli("refresh", "--out", out, "--input", days[6] / "shop.csv", "--quiet")
    assert done.code == 0, done.text
    assert "version 2" in done.out
    return Refreshed(out, days, options, before, Path(data[1]))


@pytest.fixture()
def refreshed_copy(refreshed: Refreshed, tmp_path: Path) -> Path:
    """The run with both versions, to be changed."""
    return Path(shutil.copytree(refreshed.out, tmp_path / "run"))
