from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.diagnostics.correlation import pair_mean, token_correlations
from lfm4ads_tf.diagnostics.mutual_information import (
    label_information,
    pair_informations,
    token_codes,
)
from lfm4ads_tf.diagnostics.rank import sample_eranks, token_ranks
from lfm4ads_tf.diagnostics.token_diagnosis import erank_line, token_entries, token_numbers
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens

NAMES = ("a+b", "task_click", "task_buy")
PLACES = ("tokens", "mix_1", "network_1")
B, D = 60, 5


def observed(dtype: tf.DType = tf.float32, layer: str = "mixer") -> dict[str, ObservedTokens]:
    rng = np.random.default_rng(0)
    return {
        f"{layer}/{place}": ObservedTokens(
            tf.cast(rng.normal(size=(3, B, D)), dtype), NAMES, ("click", "buy")
        )
        for place in PLACES
    }


def labels() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    buy = rng.integers(0, 2, B).astype(np.float32)
    buy[:5] = np.nan
    return {"click": rng.integers(0, 2, B).astype(np.float32), "buy": buy}


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_an_entry_holds_what_is_told_of_each_place(dtype: tf.DType) -> None:
    given, of_rows = observed(dtype), labels()
    (entry,) = token_entries(given, of_rows, seed=3)
    about = ("layer", "rows", "width", "names", "clusters")
    assert [entry[key] for key in about] == ["mixer", B, D, [*NAMES], 48]
    assert [place["place"] for place in entry["places"]] == [*PLACES]
    for place, tokens in zip(entry["places"], given.values(), strict=True):
        values = tf.cast(tokens.values, tf.float32).numpy()
        expected: dict[str, Any] = {k: v.mean() for k, v in token_ranks(values).items()}
        expected["token_erank"] = sample_eranks(values).mean()
        expected["token_erank_share"] = expected["token_erank"] / D
        expected["correlation"] = pair_mean(token_correlations(values))
        codes = token_codes(values, seed=3)
        if place["place"] != "mix_1":
            plain, chance = pair_informations(codes, seed=3)
            expected["mutual_information"] = pair_mean(plain)
            expected["mutual_information_shuffled"] = pair_mean(chance)
            assert np.allclose(place["pairs"]["mutual_information"], plain, atol=1e-4)
            assert np.allclose(place["pairs"]["mutual_information_shuffled"], chance, atol=1e-4)
        assert np.allclose(place["token_eranks"], sample_eranks(values), atol=1e-4)
        told = {key: place[key] for key in place if key not in ("place", "pairs", "token_eranks")}
        assert told == pytest.approx(expected)
    for task, code in zip(("click", "buy"), codes[1:], strict=True):
        told = next(t for t in entry["tasks"] if t["task"] == task)
        assert told == {"task": task, **label_information(code, of_rows[task], seed=3)}
    assert entry["tasks"][1]["rows"] == B - 5


def test_numbers_are_named_by_layer_and_place() -> None:
    given = observed() | observed(layer="set_1/mixer")
    entries = token_entries(given, labels(), seed=0)
    assert [entry["layer"] for entry in entries] == ["mixer", "set_1/mixer"]
    numbers = token_numbers(entries)
    assert len(numbers) == 2 * (3 * 9 + 2 * 2 + 2 * 2)
    assert numbers["mixer/mix_1/erank_share"] == entries[0]["places"][1]["erank_share"]
    task = entries[1]["tasks"][0]
    assert numbers["set_1/mixer/task_click/mutual_information"] == task["mutual_information"]
    assert "mixer/mix_1/mutual_information" not in numbers


def test_a_line_tells_the_ranks_by_place() -> None:
    places = [{"place": "tokens", "erank_share": 0.424}, {"place": "mix_1", "erank_share": 0.55}]
    entry = {"width": 64, "names": ["a", "b"], "places": places}
    assert erank_line(entry) == "D / N 64 / 2, tokens 0.42 -> mix_1 0.55"


def test_one_token_has_no_pairs_and_undefined_numbers_are_left_out() -> None:
    alone = {"mixer/tokens": ObservedTokens(observed()["mixer/tokens"].values[:1], NAMES[:1])}
    entries = token_entries(alone, labels(), seed=0)
    (place,) = entries[0]["places"]
    assert place["correlation"] is None and place["mutual_information"] is None
    names = {name.rpartition("/")[2] for name in token_numbers(entries)}
    ranks = {"erank", "centred", "stable", "token_erank"}
    assert names == ranks | {f"{name}_share" for name in ranks} and not entries[0]["tasks"]


def test_nothing_is_told_of_what_is_not_finite() -> None:
    broken = observed()
    first = broken["mixer/mix_1"]
    broken["mixer/mix_1"] = ObservedTokens(first.values * np.inf, first.names, first.tasks)
    assert token_entries(broken, labels(), seed=0) == []
    assert token_entries({}, labels(), seed=0) == []
