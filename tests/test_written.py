"""Scalars of YAML documents: the text that was written where a text is meant, else the value."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.config import Resolved, resolve
from lfm4ads_tf.data.splits import AUXILIARY
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import read_yaml
from lfm4ads_tf.representations.aggregations.registry import AGGREGATIONS
from lfm4ads_tf.strict import StrictModel, parse
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.written import dump, load, plain

SPEC = """
name: tiny
log: {files: [log.csv]}
keys: {user: u, item: i, time: t, scenario: tab}
tasks: {click: click}
split: {by: day, train_until: 2026-01-03, valid_until: 2026-01-05T12:00:00Z}
features:
  u: {owner: user, kind: hashed}
  i: {owner: item, kind: hashed}
"""


def resolved(folder: Path, more: str = "", *assignments: str, config: str = "") -> Resolved:
    (folder / "spec.yaml").write_text(SPEC + more, "utf-8")
    (folder / "keys.yaml").write_text(config or "{}", "utf-8")
    return resolve(folder / "spec.yaml", assignments, None, folder / "keys.yaml")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[NO, SE]", ["NO", "SE"]),
        ("[16:9, square]", ["16:9", "square"]),
        ("[010, 100]", ["010", 100]),
        ("[yes, unknown]", ["yes", "unknown"]),
        ("[on, off, y, n]", ["on", "off", "y", "n"]),
        ("[1, '1', 1.0]", [1, "1", 1.0]),
        ("[true, False, TRUE]", [True, False, True]),
        ("[7.10, 1_000, 0x1F, +5, 1e3, 1e-3]", ["7.10", "1_000", "0x1F", "+5", "1e3", "1e-3"]),
        ("[2026-01-06, 22:30:00]", ["2026-01-06", "22:30:00"]),
        ("['010', \"NO\"]", ["010", "NO"]),
    ],
)
def test_values_of_row_sets_are_what_was_written(
    tmp_path: Path, written: str, expected: list[Any]
) -> None:
    spec = resolved(tmp_path, f"ads: {{by: c, values: {written}}}\n").spec
    assert spec.ads is not None
    found = spec.ads.values
    assert found == expected and [type(v) for v in found] == [type(v) for v in expected]
    assigned = resolved(tmp_path, "ads: {by: c, values: [x]}\n", f"ads.values={written}").spec
    assert assigned.ads == spec.ads
    # every written text is matched by that very text of the data
    texts = [t.strip(" '\"") for t in written.strip("[]").split(",")]
    assert spec.ads.rows(pa.array([*texts, "other"])).tolist() == [True] * len(texts) + [False]


def test_names_scenarios_and_columns_are_texts_wherever_they_are_given(tmp_path: Path) -> None:
    more = "signals: {NO: 2020, 007: off}\nrun: {scenarios: [NO, 010, 1, 16:9]}\n"
    found = resolved(tmp_path, more)
    assert {n: t.label for n, t in found.spec.signals.items()} == {"NO": "2020", "007": "off"}
    assert found.config.scenarios == ["NO", "010", "1", "16:9"]
    assert resolved(tmp_path, "", "scenarios=[NO, 010]").config.scenarios == ["NO", "010"]
    config = "{scenarios: [on, 1.50], seeds: 0x2, upstream: {branches: off}}"
    by_file = resolved(tmp_path, "", config=config).config
    assert by_file.scenarios == ["on", "1.50"]
    assert by_file.seeds == 2 and by_file.upstream.branches is False


def test_numbers_truth_values_dates_and_nothing_stay_what_they_were(tmp_path: Path) -> None:
    found = resolved(
        tmp_path,
        "dataset_options: {rows: 1_000, fast: yes, none: ~, share: 0.10}\n",
        "upstream.training.optimizer.dense_learning_rate=1e-3",
        "scenarios=null",
        "seed=007",
    )
    assert found.spec.split.train_until == "2026-01-03"  # type: ignore[union-attr]
    assert found.spec.split.valid_until == "2026-01-05T12:00:00Z"  # type: ignore[union-attr]
    assert found.spec.dataset_options == {"rows": 1000, "fast": True, "none": None, "share": 0.1}
    assert found.config.upstream.training.optimizer.dense_learning_rate == 1e-3
    assert found.config.scenarios is None and found.config.seed == 7


@pytest.mark.parametrize("more", ["", "ads: {by: c, values: [NO, 010, 1e5, '1', 1, 1.0, true]}\n"])
def test_the_config_of_a_run_reads_back_the_same(tmp_path: Path, more: str) -> None:
    found = resolved(tmp_path, more + "run: {scenarios: ['on', 16:9, 1e5, null]}\n")
    (tmp_path / "config.yaml").write_text(found.to_yaml(), "utf-8")
    again = parse(Resolved, read_yaml(tmp_path / "config.yaml"), source="config.yaml")
    assert again.model_dump() == found.model_dump()
    # other readers of YAML 1.1 see the same texts
    assert parse(Resolved, yaml.safe_load(found.to_yaml()), source="x").config == found.config


def test_what_has_no_value_after_all_is_a_text() -> None:
    texts = ["2026-13-01", "9" * 5000, "1:99"]
    assert load(f"[{', '.join(texts)}]") == texts
    (written,) = load("[010]")
    assert copy.deepcopy(written).value == 10 and pickle.loads(pickle.dumps(written)) == "010"


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives the key 'features.u' twice"):
        resolved(tmp_path, "  u: {owner: user, kind: vocabulary}\n")


def test_null_in_a_row_set_asks_for_quotes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quote the text 'NULL'"):
        resolved(tmp_path, "ads: {by: c, values: [NULL, x]}\n")


SCALARS = st.one_of(
    st.text(max_size=8).filter(lambda t: t.isprintable()),
    st.sampled_from(["NO", "on", "~", "null", "010", "1e5", "1E5", "16:9", "0x1F", "1_0", "=", ""]),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text("aN0:.e1", min_size=1, max_size=5), st.lists(SCALARS, max_size=4)))
@example({"NO": [1e-05, "1.0e-05", "2026-01-06", ".5", "0o7", "<<"]})
def test_what_is_dumped_reads_back_as_it_was(document: dict[str, Any]) -> None:
    text = dump(document)
    assert plain(load(text)) == document
    assert {str(k): v for k, v in yaml.safe_load(text).items()} == document


class _Typed(StrictModel):
    text: str = ""
    texts: list[str] = []
    number: float = 0.0
    whole: int | None = None
    truth: bool = False


@settings(max_examples=100, deadline=None)
@given(st.from_regex(r"[-+]?0*[0-9]{1,6}(\.[0-9]{1,3})?(e[0-9])?", fullmatch=True))
def test_a_number_is_its_text_where_a_text_is_meant_and_its_value_elsewhere(text: str) -> None:
    found = _Typed.model_validate(load(f"{{text: {text}, texts: [{text}], number: {text}}}"))
    assert found.text == text and found.texts == [text]
    assert found.number == float(text)


def test_plain_values_of_a_program_are_taken_as_before() -> None:
    found = _Typed.model_validate({"text": 3, "texts": [True, date(2026, 1, 6)], "whole": None})
    assert found.text == "3" and found.texts == ["true", "2026-01-06"] and found.whole is None


def test_rows_of_such_values_are_chosen(make_ads: Callable[..., Any]) -> None:
    texts = ["NO", "010", "16:9", "yes", "SE", "10", "969", "false", "true", "8"]

    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for k, row in enumerate(tables["log"]):
            row["market"] = texts[k % len(texts)]

    world = make_ads(
        change,
        ads=load("{by: market, values: [NO, 010, 16:9, yes]}"),
        segments=load("{off: {by: market, values: [no, SE]}}"),
    )
    log = world.raw.split != AUXILIARY
    market = np.array(world.raw.columns["market"].to_pylist(), object)[log]
    assert np.array_equal(world.cache.branch[log], np.isin(market, texts[:4]))
    assert world.cache.layout.segments == ("off",)
    assert np.array_equal(world.cache.segments[log, 0], market == "SE")


class NamedOptions(StrictModel):
    mode: str = "x"
    rate: float = 1.0
    on: bool = True


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        (ADAPTERS, "downstream.adapter_options"),
        (AGGREGATIONS, "representations.aggregation_options"),
    ],
)
def test_options_of_a_plug_in_are_read_by_their_types(
    registry: Any, key: str, tmp_path: Path
) -> None:
    entry = type("Entry", (), {"Config": NamedOptions})
    with registry.added("mine", entry):
        found = resolved(tmp_path, "", f"{key}={{mine: {{mode: NO, rate: 1e-3, on: off}}}}")
        section, name = key.split(".")
        expected = {"mine": {"mode": "NO", "rate": 0.001, "on": False}}
        assert getattr(getattr(found.config, section), name) == expected
        (tmp_path / "config.yaml").write_text(found.to_yaml(), "utf-8")
        again = parse(Resolved, read_yaml(tmp_path / "config.yaml"), source="config.yaml")
        assert again == found
