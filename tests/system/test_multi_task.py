"""Upstreams of several tasks or sets of embeddings, through run, export and predict."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export import stage, verify_child
from lfm4ads_tf.export.golden_rows import encoded_batch
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.skew.in_process_model import InProcessModel
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.pipeline.run import open_run
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.training.schedule import chain, continuation
from tests.quick_proof import quick_proof
from tests.rounding import probability_room

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {"expert_units": [8, 4], "task_units": [4]}
METHOD = "feature/linear/UR+IR+CR_user@mix_click & feature/cross/UR+IR"


@dataclass(frozen=True)
class Case:
    """An upstream: its options, other settings, the layer that is handed on, more adapters."""

    model: str
    options: Mapping[str, Any]
    layer: str = "mix_click"
    settings: Mapping[str, Any] = field(default_factory=dict)
    further: str = ""

    @property
    def assignments(self) -> dict[str, str]:
        """What `--set` is given."""
        own = {f"upstream.{self.model}": self.options} if self.options else {}
        given = {"upstream.model": self.model, **own, **self.settings}
        return {key: v if isinstance(v, str) else json.dumps(v) for key, v in given.items()}


def experts(model: str, layer: str = "mix_click", **options: Any) -> Case:
    """One that has experts and towers."""
    return Case(model, {**SIZES, **options}, layer)


ALONE = {"upstream.network.shared_head": False}
"""No logit is shared by the scenarios."""
CASES = {
    "single_task": experts("single_task"),
    "shared_bottom": experts("shared_bottom"),
    "omoe": replace(experts("omoe", experts=2, gate_units=[4]), settings=ALONE),
    "mmoe": experts("mmoe", experts=2),
    "ple": experts("ple"),
    "stem": experts("stem", gate_units=[4]),
    "sdem": experts("stem", "mix_home", axis="scenario", mixtures_of=["home"]),
    "stem_al": experts("stem_al", auxiliary=["order"]),
    "ame": experts("ame", set_groups=[1, 2]),
    "crocodile": experts(
        "crocodile",
        "mix_home",
        experts=2,
        prior_dim=4,
        covariance_rows=32,
        mixtures_of=["home"],
        least_rows=500,
    ),
    "esmm": experts("esmm", funnel=["click", "order"]),
    "aitm": experts("aitm", calibrator=0.1),
    "star": Case("star", {"units": [8, 4], "auxiliary_units": [4], "scenario_dim": 4}, "star_2"),
    "pepnet": Case(
        "pepnet", {"units": [8, 4], "gate_units": 4, "scenario_dim": 4}, "ppnet_2_click"
    ),
    "multi_embedding": Case(
        "multi_embedding",
        {},
        "mean",
        {
            **ALONE,
            "upstream.embeddings.sets": 2,
            "upstream.network.block": {
                "layers": [{"type": "ipnn", "dim": 4, "units": 4}, {"type": "cross", "depth": 1}],
                "set_dim": 8,
                "shared_units": [4],
            },
        },
    ),
}
CASES["mixer"] = Case(
    "foundation",
    {},
    "task_click",
    {
        "upstream.embeddings.sets": 2,
        "upstream.network.user_tower": [],
        "upstream.network.item_tower": [],
        "upstream.network.block": {
            "layers": [
                {"type": "mixer", "tokens": 3, "head_dim": 4, "sets": "each", "order": "permuted"}
                | {"norm": "pre", "network": "swiglu", "global_token": "fm", "readout": "task"}
                | {"sequence_tokens": True, "experts": 2, "decorrelation": 0.01}
            ]
        },
        "downstream.embeddings.sets": 2,
        "downstream.network.user_tower": [],
        "downstream.network.item_tower": [],
        "downstream.network.block.layers": [
            {"type": "mixer", "tokens": 3, "head_dim": 4, "depth": 1, "readout": "task"}
            | {"global_token": "mlp", "number_tokens": 2}
        ],
    },
    " & feature/token/UR+IR",
)
OBSERVED = {"ame": "gate/", "crocodile": "experts/", "mixer": "mixer/"}
"""What the names of what a model is observed by begin with."""


@pytest.fixture(scope="module")
def arguments(shop_arguments: list[str]) -> list[str]:
    """Without the sizes of an interaction block, which these models do not have."""
    block = next(k for k, v in enumerate(shop_arguments) if v.startswith("upstream.network.block"))
    return [*shop_arguments[: block - 1], *shop_arguments[block + 1 :]]


@pytest.mark.parametrize("name", CASES)
def test_run_export_and_predict(
    name: str,
    cli: Callable[..., Any],
    shop: Any,
    arguments: list[str],
    tmp_path: Path,
) -> None:
    case = CASES[name]
    method = METHOD.replace("mix_click", case.layer) + case.further
    settings = {
        **case.assignments,
        "downstream.methods": json.dumps([method]),
        "export.method": method,
        "retrieval.enabled": "false",
        "baseline.methods": "[constant]",
    }
    given = [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    out = tmp_path / "run"
    with quick_proof():
        options = [*arguments, *given, "--scenarios", "home", "--out", out]
        done = cli("run", *options)
    assert done.code == 0, done.text
    # once, though the batch size is chosen after the data were prepared
    assert done.text.count("upstream.crocodile.least_rows: 500") == (name == "crocodile")
    document = json.loads((out / "metrics.json").read_text("utf-8"))
    scored = {e["method"] for e in document["results"] if e["split"] == "test"}
    assert {"upstream", method} <= scored
    told = json.loads((out / "upstream/seed_0/results.json").read_text("utf-8")).get("observed", {})
    assert (name in OBSERVED) == bool(told)
    assert all(key.startswith(OBSERVED[name]) and np.isfinite(told[key]) for key in told)
    assert ('id="tokens"' in (out / "report.html").read_text("utf-8")) == (name == "mixer")
    if name == "mixer":
        drawn = {
            value.tag
            for path in (out / "tensorboard/upstream/seed_0").glob("events*")
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
        }
        assert {f"observed/{key}" for key in told} <= drawn
    for task in {key.split("/")[1] for key in told if key.startswith("gate/")}:
        parts = [value for key, value in told.items() if key.startswith(f"gate/{task}/")]
        # means of weights that sum to 1 in every row, of float32
        assert len(parts) == 2 and abs(sum(parts) - 1) < 1e-5
    states = {e["model"]: e["state"] for e in document["exports"]}
    assert states == dict.fromkeys(
        ("foundation", "user_tower", "item_tower", "ranker_home"), "published"
    )
    if name == "mixer":
        check_ranked(out / "exports" / "ranker_home" / "1")
    rows, scores = shop.folder / "shop.csv", tmp_path / "scores.parquet"
    done = cli(
        "predict", "--out", out, "--model", "foundation", "--input", rows, "--output", scores
    )
    assert done.code == 0, done.text
    predicted = pq.read_table(scores)["score"].to_numpy()
    assert len(predicted) and ((predicted > 0) & (predicted < 1)).all()
    assert np.std(predicted) > 0
    with quick_proof(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage._Exports, "is_due", lambda self, name, source: name == "foundation")
        done = cli("export", *options, "--set", "export.tables=int8")
    assert done.code == 0, done.text
    check_served(out, {"1": "float32", "2": "int8"})


def check_ranked(folder: Path) -> None:
    """Holds a ranker's `rank` against the same pairs as rows of their own."""
    requests, expected, _ = verify_child.read_golden(folder)
    contract = json.loads((folder / "assets.extra" / "contract.json").read_text("utf-8"))
    loaded, ranked = verify_child.LoadedModel(folder), requests["rank"]
    size = max(len(values) for values in ranked.values())
    users = [name for name, values in ranked.items() if len(values) == 1]
    assert users and size > 8
    rows = {n: np.repeat(v, size, axis=0) if n in users else v for n, v in ranked.items()}
    found, single = loaded("rank", ranked), loaded("predict", rows)
    assert found.keys() == single.keys() == expected["rank"].keys()
    room = contract["tolerance"] + probability_room(200, 10.0)
    for task, scores in found.items():
        assert np.abs(scores - single[task]).max() <= room
        assert len(np.unique(scores)) > size // 2


def check_served(out: Path, versions: dict[str, ServedStorage]) -> None:
    """Holds exports of the upstream against its own scores, of rows as no training row is."""
    run = open_run(out)
    log = EncodedLog(run.spec, out / "data")
    model, rows = load_upstream(run, 0), log.samples(32)
    types = log.encoder.raw_types

    def encoded(columns: pa.Table) -> Any:
        given = {name: columns[name].combine_chunks() for name in columns.column_names}
        return encoded_batch(log.encoder, given, {})

    def put(column: str, value: str | None) -> pa.Table:
        place = rows.column_names.index(column)
        values = pa.array([value] * rows.num_rows, rows.schema.field(column).type)
        return rows.set_column(place, column, values)

    for version, tables in versions.items():
        folder = out / "exports" / "foundation" / version
        assert json.loads((folder / "blessing.json").read_text("utf-8"))["blessed"]
        contract = json.loads((folder / "assets.extra" / "contract.json").read_text("utf-8"))
        assert contract["tables"] == tables
        groups = ModelParts(model).field_groups
        assert contract.get("field_groups", {}) == groups
        for group in groups.values():  # as the run drew and kept them
            layer = run.config.upstream.network.block.layers[0]
            assert group == {**layer.groups, **{n: [n] for n in ("clicked_before", "tags")}}
        tasks = model.served_tasks
        assert [*tasks, *contract["auxiliary_tasks"]] == list(log.layout.tasks)
        signatures = {"serving_default", "predict", "classify", "regress", "encode"}
        signatures |= {f"regress_{task}" for task in tasks}
        assert signatures == set(contract["signatures"])  # which are proven in the blessing
        loaded = InProcessModel(folder)
        kinds = {c: types.get(c) or RawType(kind) for c, kind in contract["columns"].items()}

        def served(
            columns: pa.Table,
            loaded: InProcessModel = loaded,
            kinds: Any = kinds,
            tasks: list[str] = tasks,
        ) -> np.ndarray:
            asked = {name: columns[name].combine_chunks() for name in kinds}
            found = loaded.run("serving_default", RequestSchema(kinds, {}).examples(asked, {}))
            assert found.keys() == set(tasks)
            return np.stack([found[task] for task in tasks], axis=1)

        def by_shares(batch: Any, count: int = len(tasks)) -> np.ndarray:
            """Of the logits of each scenario, by the rows of the log that were trained on."""
            trained = [*chain(run.config.upstream.training, run.cache)]
            rows = run.cache.scenario[np.concatenate([phase.rows for phase in trained])]
            shares = np.bincount(rows, minlength=len(log.layout.scenarios)) / len(rows)
            assert len(np.unique(shares)) > 1
            logits = np.zeros(())
            for s, share in enumerate(shares):
                of_one = {**batch, "scenario": np.full(batch["scenario"].shape, s)}
                logits = logits + share * model(of_one).numpy().astype(np.float64)
            return (1 / (1 + np.exp(-logits)))[:, :count]

        def own(batch: Any, count: int = len(tasks)) -> np.ndarray:
            return model.probabilities(model(batch)).numpy()[:, :count]  # served ones are first

        room = contract["tolerance"] + probability_room(200, 10.0)
        usual = served(rows)
        assert np.abs(usual - own(encoded(rows))).max() <= room
        for column, value in (
            *(("surface", "nowhere"), ("surface", None), ("user_id", "nobody")),
            *(("user_id", None), ("item_id", "nothing"), ("price", None), ("category", "none")),
        ):
            columns = put(column, value)
            batch = encoded(columns)
            # no scenario: the logit that all of them share, else the mean of theirs
            unknown = column == "surface"
            assert (batch["scenario"].numpy() == -1).all() == unknown
            found = served(columns)
            assert np.abs(found - own(batch)).max() <= room
            if unknown and not run.config.upstream.network.shared_head:
                assert np.abs(found - by_shares(batch)).max() <= room
            assert not np.array_equal(found, usual)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["upstream.model=single_task", "upstream.embeddings.sets=1"],
            "set upstream.embeddings.sets=2",
        ),
        (["upstream.model=ple", "upstream.mmoe.experts=3"], "'ple' does not read upstream.mmoe"),
        (["upstream.model=esmm"], "upstream.esmm.funnel: this key is required"),
        (
            ["upstream.model=esmm", "upstream.esmm.funnel=[click, ordr]"],
            "unknown task 'ordr'. Did you mean 'order'?",
        ),
        (["upstream.model=ple", "downstream.methods=[module/isomorphic]"], "has no mix tower"),
        (
            ["upstream.model=pepnet", "upstream.pepnet.priors=[usr_id]"],
            "'usr_id', which is no embedded feature. Did you mean 'user_id'?",
        ),
        (
            ["upstream.model=star", "upstream.network.shared_head=false"],
            "STAR has no logits of a scenario's own",
        ),
        (
            ["upstream.model=crocodile", "upstream.crocodile.priors=[usr_id]"],
            "'usr_id', which is no embedded feature. Did you mean 'user_id'?",
        ),
        (["upstream.model=crocodile", "upstream.crocodile.alpha=-1"], "greater than or equal to 0"),
        (["upstream.model=stem", "upstream.stem.mixtures_of=[home]"], "set upstream.stem.axis"),
        (
            ["upstream.model=multi_embedding", "upstream.network.block.structure=gated"],
            "Gates mix the layers of one interaction block",
        ),
        (["downstream.network.block.sets=each"], "block of a downstream reads all sets"),
        (
            [
                *("upstream.network.block.sets=each", "upstream.embeddings.sets=2"),
                "downstream.methods=[module/warm_start/output]",
            ],
            "embeddings",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_anything_is_written(
    cli: Callable[..., Any],
    arguments: list[str],
    tmp_path: Path,
    settings: list[str],
    message: str,
) -> None:
    given = [part for setting in settings for part in ("--set", setting)]
    done = cli("run", *arguments, *given, "--out", tmp_path / "run")
    assert done.code == 2 and message in done.text, done.text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options", ["crocodile.mixtures_of", "stem.axis=scenario stem.mixtures_of"]
)
def test_mixtures_of_a_scenario_that_the_data_lack_are_refused_with_them(
    options: str, cli: Callable[..., Any], arguments: list[str], tmp_path: Path
) -> None:
    model = options.split(".")[0]
    settings = [f"upstream.model={model}", *(f"upstream.{o}" for o in f"{options}=[hme]".split())]
    given = [part for setting in settings for part in ("--set", setting)]
    done = cli("prepare", *arguments, *given, "--out", tmp_path / "run")
    told = " ".join(done.err.split())
    assert done.code == 2 and told.count("Error:") == 1, done.text
    assert "names 'hme', a scenario of no training row. Did you mean 'home'?" in told
    assert not (tmp_path / "run" / "data").exists()


@pytest.fixture(scope="module")
def funnel_run(
    cli: Callable[..., Any], arguments: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A run of esmm up to `extract`, and the options of its stages; tests copy it."""
    options = {
        "upstream.model": "esmm",
        "upstream.esmm": json.dumps(CASES["esmm"].options),
        "downstream.methods": json.dumps([METHOD]),
        "retrieval.enabled": "false",
    }
    given = [part for k, v in options.items() for part in ("--set", f"{k}={v}")]
    out = tmp_path_factory.mktemp("funnel") / "run"
    for command in ("prepare", "pretrain", "extract"):
        done = cli(command, *arguments, *given, "--out", out)
        assert done.code == 0, done.text
    return out, [*arguments, *given]


def test_a_refresh_refuses_rows_that_are_no_funnel_and_takes_a_day_without_orders(
    funnel_run: tuple[Path, list[str]], cli: Callable[..., Any], shop: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(funnel_run[0], out)
    with (shop.folder / "shop.csv").open() as stream:
        columns, *rows = csv.reader(stream)
    day, time, click, order = (columns.index(c) for c in ("day", "timestamp", "clicked", "ordered"))
    rows = [row for row in rows if row[day] == "20260107"]
    for row in rows:
        row[day], row[time], row[order] = "20260108", str(int(row[time]) + 86_400), "0"
    path = tmp_path / "new.csv"

    def refreshed() -> Any:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])
        return cli("refresh", "--out", out, "--input", path, "--quiet")

    wrong = [row for row in rows if row[click] == "0"][: len(rows) // 100 + 1]
    for row in wrong:
        row[order] = "1"
    done = refreshed()
    assert done.code == 2, done.text
    told = " ".join(done.err.split())
    assert f"{len(wrong):,} of {len(rows):,} new rows, more than 1 %" in told
    assert told.count("Fix:") == 1 and not (out / "versions").exists()
    for row in wrong:
        row[order] = "0"
    done = refreshed()
    assert done.code == 0, done.text
    assert (out / "versions" / "2" / "data" / "manifest.json").exists()


def test_statistics_of_star_move_on_in_a_refresh_from_where_they_were(
    cli: Callable[..., Any], arguments: list[str], shop: Any, tmp_path: Path
) -> None:
    """With hardly a discount they count the rows that were trained on, replayed ones too."""
    star = {**CASES["star"].options, "momentum": 1 - 1e-6}
    options = {
        "upstream.model": "star",
        "upstream.star": json.dumps(star),
        "upstream.training.replay": "1",
        "downstream.methods": "[none]",
        "retrieval.enabled": "false",
    }
    given = [part for k, v in options.items() for part in ("--set", f"{k}={v}")]
    out, path = tmp_path / "run", tmp_path / "new.csv"
    for command in ("prepare", "pretrain", "extract"):
        done = cli(command, *arguments, *given, "--out", out)
        assert done.code == 0, done.text
    with (shop.folder / "shop.csv").open() as stream:
        columns, *rows = csv.reader(stream)
    day, time = (columns.index(c) for c in ("day", "timestamp"))
    rows = [row for row in rows if row[day] == "20260107"]
    for row in rows:
        row[day], row[time] = "20260108", str(int(row[time]) + 86_400)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    done = cli("refresh", "--out", out, "--input", path, "--quiet")
    assert done.code == 0, done.text
    parent, child = open_run(out), open_run(out / "versions" / "2")
    training = parent.config.upstream.training
    first = [*chain(training, parent.cache)]
    more = continuation(training, child.cache, parent.held_out_from)
    for run, phases in ((parent, first), (child, [*first, *more])):
        norm: Any = load_upstream(run, 0).norm  # type: ignore[attr-defined]
        trained = np.concatenate([phase.rows for phase in phases])
        of_rows = child.cache.scenario[trained]
        counts = [*np.bincount(of_rows, minlength=norm.scenarios), len(trained)]
        # float32 sums of whole numbers below 2^24, discounted by at most 1e-6 in each step
        assert np.allclose(norm.moving_rows.numpy()[:, 0], counts, rtol=1e-3)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("      task_units:\n      - 4\n", "      task_units:\n      - 3\n"),
        ("      task_units:\n      - 4\n", "      task_units:\n      - 4\n      - 4\n"),
        ("      dim: 4\n", "      dim: 6\n"),
        ("      dim: 4\n", "      dim: 4\n      sets: 2\n"),
    ],
    ids=["narrower", "deeper", "tables", "sets"],
)
def test_weights_of_other_sizes_are_refused(
    was: str,
    now: str,
    funnel_run: tuple[Path, list[str]],
    cli: Callable[..., Any],
    shop: Any,
    tmp_path: Path,
) -> None:
    """With a configuration that was changed by hand; the commands refuse another one anyway."""
    out = tmp_path / "run"
    shutil.copytree(funnel_run[0], out)
    done = cli("extract", *funnel_run[1], "--set", "upstream.esmm.task_units=[3]", "--out", out)
    assert done.code == 2 and "made from another configuration" in done.text, done.text
    text = (out / "config.yaml").read_text("utf-8")
    assert was in text, text
    (out / "config.yaml").write_text(text.replace(was, now), "utf-8")
    scores = tmp_path / "scores.parquet"
    done = cli(
        "predict", "--out", out, "--model", "foundation",
        "--input", shop.folder / "shop.csv", "--output", scores,
    )  # fmt: skip
    assert done.code == 2 and done.err.count("Error:") == 1, done.text
    assert not scores.exists()
