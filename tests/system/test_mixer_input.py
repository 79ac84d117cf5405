"""What a mixer of tokens cannot do is refused by the command line before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.config import resolve
from lfm4ads_tf.pipeline.run import Run

PRESET = ["dataset_options.rows=3000", "preset=rankmixer"]
SIDES = "u: [user_id, age_bucket, gender, city, interests, clicked], "
SIDES += "i: [ad_id, advertiser_id, category, keywords, bid_step]"
CONTEXT = "c: [scenario, device, position, hour, city_category]"


def mixer(options: str, part: str = "upstream", after: str = "") -> str:
    return f"{part}.network.block.layers=[{{type: mixer, {options}}}{after}]"


def semantic(groups: str) -> str:
    return mixer(f"order: semantic, groups: {{{groups}}}")


def methods(*names: str) -> str:
    return f"downstream.methods=[{', '.join(names)}]"


DIRECT = "downstream.adapter_options.cross.direct=true"
OTHER_TOKENS = "The upstream's mixer would make other tokens of other fields"
WAY = "Fix: use order: semantic with towers without units in the upstream"
PARALLEL = "upstream.network.block.structure=parallel"
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "a width that is no multiple of the heads": (
        [mixer("dim: 100")],
        ["no multiple of its heads", "dim: 100, 17 heads", "set dim: 102, the nearest"],
    ),
    "the same of the downstream": (
        [mixer("dim: 130", "downstream")],
        ["no multiple of its heads", "set dim: 136, the nearest"],
    ),
    "the same beside what a method adds": (
        [mixer("dim: 136", "downstream"), methods("feature/token/UR")],
        ["dim: 136, 18 heads, 18 tokens", "set dim: 144, the nearest"],
    ),
    "other heads than tokens": (
        [mixer("heads: 4")],
        ["With `norm: post` a mixer needs as many heads", "set heads: 17"],
    ),
    "other heads than tokens with pre": (
        [mixer("heads: 4, norm: pre")],
        ["With `norm: pre` a mixer needs as many heads", "set heads: 17"],
    ),
    "more tokens than fields": (
        [mixer("tokens: 40")],
        ["more tokens than fields", "40 tokens of fields; 16 fields", "16 tokens or fewer"],
    ),
    "no fields": (
        ["downstream.omit=['*']"],
        ["no embedded feature that its tokens could be made of"],
    ),
    "an unknown feature": (
        [semantic("a: [usr_id]")],
        ["group 'a' names the unknown feature 'usr_id'. Did you mean 'user_id'?"],
    ),
    "an unknown feature beside what is drawn": (
        [mixer("groups: {a: [usr_id]}")],
        ["group 'a' names the unknown feature 'usr_id'. Did you mean 'user_id'?"],
    ),
    "a feature in two groups": (
        [semantic("a: [user_id, city], b: [city]")],
        ["The feature 'city' is in two token groups", "a and b"],
    ),
    "a feature in none": (
        [semantic(SIDES)],
        ["The feature 'scenario' is in no token group", "add scenario, device"],
    ),
    "a sequence in a group": (
        [mixer("order: semantic, sequence_tokens: true, groups: {a: [clicked]}")],
        ["names 'clicked', a multi-valued feature", "take 'clicked' out of the group"],
    ),
    "sequences that are cut": (
        [mixer("order: scalars, sequence_tokens: true")],
        ["no sequence has a token of its own"],
    ),
    "an unknown order": ([mixer("order: permutted")], ["'permuted' or 'scalars'"]),
    "an unknown key": ([mixer("permutaton: 3")], ["Did you mean 'permutation'?"]),
    "tasks that are not read out last": (
        [mixer("readout: task", after=", {type: dnn}")],
        ["it is the last one of a stacked block"],
    ),
    "a direct cross": (
        [methods("feature/cross/UR+IR"), DIRECT],
        ["not trained as one dot-product space", "'foundation' trains as one space: none"],
    ),
    "a direct cross of layers": (
        [methods("feature/cross/CR_user@tokens+CR_item@tokens"), DIRECT],
        ["not trained as one dot-product space"],
    ),
    "an unknown layer": (
        [methods("feature/token/CR_user@mixr_2")],
        ["Did you mean 'CR_user@mixer_2'?"],
    ),
    "a gate of a stream that nothing reads": (
        [methods("feature/gate/UR")],
        ["a gate of the stream, which no layer", "use feature/gate_fields/UR"],
    ),
    "a warm start of fewer fields": (
        [methods("module/warm_start/output"), "downstream.omit=[city]"],
        [OTHER_TOKENS, "module/warm_start/output: not on both sides: city", WAY],
    ),
    "a warm start without a whole group": (
        [
            semantic(f"a: [city], {SIDES.replace('city, ', '')}, {CONTEXT}"),
            methods("module/warm_start/mixer_1"),
            "downstream.omit=[city]",
        ],
        [OTHER_TOKENS, "each group keeping a field"],
    ),
    "a warm start of fewer numbers": (
        [methods("module/warm_start/tokens"), "downstream.omit=[bid]"],
        ["makes tokens of numbers that are not read here", "without bid", "number_tokens: 0"],
    ),
    "a warm start of more tokens": (
        [methods("feature/token/UR+IR & module/warm_start/output")],
        ["no token for what a method joins", "2 further tokens", "feature/gate_fields"],
    ),
    "a module without some context": (
        [methods("module/isomorphic"), "downstream.omit=[device]"],
        [OTHER_TOKENS, "module/isomorphic: not on both sides: device", WAY],
    ),
    "a module over a tower with units": (
        [
            methods("module/isomorphic"),
            "upstream.network.user_tower=[8]",
            PARALLEL,
            mixer("", after=", {type: cross}"),
        ],
        [OTHER_TOKENS, "user tower", WAY],
    ),
}


def arguments(*settings: str) -> list[str]:
    return [part for setting in (*PRESET, *settings) for part in ("--set", setting)]


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_one_message(case: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    settings, expected = REFUSED[case]
    out = tmp_path / "run"
    done = cli("prepare", "--spec", "synthetic", "--out", out, "--quiet", *arguments(*settings))
    assert done.code == 2 and "Traceback" not in done.text, done.text
    assert done.err.count("Error:") == 1
    message = " ".join(done.err.split())
    for text in expected:
        assert text in message, message
    assert not out.exists()


def test_a_run_goes_on_with_the_permutation_that_it_began_with(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    first = mixer("order: permuted, permutation: 3")
    resolved = resolve(Path("synthetic"), [*PRESET, first])
    drawn = resolved.config.upstream.network.block.layers[0].groups
    run = Run(tmp_path / "run", resolved, quiet=True)
    run.begin()
    (run.out / "data").mkdir()  # something was made in it
    before = (run.out / "config.yaml").read_text("utf-8")
    other = mixer("order: permuted, permutation: 4")
    done = cli("prepare", "--spec", "synthetic", "--out", run.out, "--quiet", *arguments(other))
    assert done.code == 2 and "was made from another configuration" in done.err
    assert "layers.0.permutation was 3, is now 4" in " ".join(done.err.split())
    assert (run.out / "config.yaml").read_text("utf-8") == before
    again = Run(run.out, resolve(Path("synthetic"), [*PRESET, first]), quiet=True)
    assert again.config.upstream.network.block.layers[0].groups == drawn
