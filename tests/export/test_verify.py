"""Verification: what is blessed, and every reason to refuse."""

from __future__ import annotations

import copy as copies
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export import verify, verify_child
from lfm4ads_tf.export.blessing import BLESSING_FILE, file_digests, read_blessing
from lfm4ads_tf.export.cpp_loader import build_loader
from lfm4ads_tf.export.verify import find_exports, main, verify_export
from lfm4ads_tf.export.warmup import read_warmup
from lfm4ads_tf.features.spec import FeatureSpec

pytestmark = pytest.mark.processor

ROOT = Path(__file__).parents[2]
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture
def tower(exports: Path, tmp_path: Path) -> Path:
    target = tmp_path / "user_tower" / "1"
    shutil.copytree(exports / "user_tower" / "1", target)
    return target


@pytest.fixture
def ranker(exports: Path, tmp_path: Path) -> Path:
    target = tmp_path / "ranker_tab 1" / "1"
    shutil.copytree(exports / "ranker_tab 1" / "1", target)
    return target


@pytest.fixture
def spec_file(world: Any, tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(world.raw_spec), encoding="utf-8")
    return path


@pytest.fixture
def passing(tower: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FeatureSpec | None]]:
    """A verification that every version passes; the specs that it is given."""
    asked: list[FeatureSpec | None] = []
    told = ("rows_compared", "largest_difference", "largest_share", "warmup_records")
    report = json.loads((tower / BLESSING_FILE).read_text("utf-8"))
    report = {key: report[key] for key in (*told, "load_s", "latency_ms", "cpp_loader")}

    def verified(folder: Path, spec: FeatureSpec | None = None, **_: Any) -> dict[str, Any]:
        asked.append(spec)
        skipped = {} if report["cpp_loader"] else {"cpp_loader_skipped": "no compiler"}
        return {**report, **skipped, "files": file_digests(folder)}

    monkeypatch.setattr(verify, "verify_export", verified)
    yield asked


@pytest.mark.slow  # three processes, each of which imports TensorFlow or loads the model
def test_command_line_blesses_an_export(ranker: Path, spec_file: Path) -> None:
    (ranker / BLESSING_FILE).unlink()
    done = subprocess.run(
        [sys.executable, "-m", "lfm4ads_tf.export.verify"]
        + [str(ranker.parent), "--spec", str(spec_file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("ranker_tab 1/1: blessed now, blessing.json is written; 41 rows")
    assert "warm-up requests" in line
    assert read_blessing(ranker, "ranker_tab 1")["largest_share"] <= 1


def test_refusal_is_the_last_line_and_exit_3(
    tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_warmup(tower)
    assert main([str(tower.parent)]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("user_tower/1 refused: the warm-up file is damaged: record ")


def test_nothing_to_verify_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "No SavedModel version lies in" in capsys.readouterr().err
    assert main([str(tmp_path), "--spec", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml" in capsys.readouterr().err


@pytest.mark.usefixtures("passing")
def test_what_passes_is_blessed_or_stays_so(
    tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tower / BLESSING_FILE).read_bytes()
    assert main([str(tower)]) == 0
    assert "user_tower/1: blessed; 41 rows" in capsys.readouterr().out
    assert (tower / BLESSING_FILE).read_bytes() == before
    (tower / BLESSING_FILE).unlink()
    assert main([str(tower.parent)]) == 0
    assert "user_tower/1: blessed now, blessing.json is written; " in capsys.readouterr().out
    written = read_blessing(tower, "user_tower")
    assert (written["kind"], written["source"]) == ("user_tower", {})
    # files other than those that were blessed are no longer blessed, even where they pass
    (tower / "more").touch()
    assert main([str(tower)]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "user_tower/1 refused: the file 'more' was not there when it was blessed"


@pytest.mark.usefixtures("passing")
def test_a_version_under_another_models_name_is_refused(
    tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tower.parent.rename(tower.parent.with_name("item_tower"))
    assert main([str(other)]) == 3
    assert capsys.readouterr().out.splitlines()[-1] == (
        "item_tower/1 refused: its blessing.json is that of the model 'user_tower', not of "
        "'item_tower'"
    )


def test_the_spec_may_be_that_of_a_run(
    tower: Path, world: Any, tmp_path: Path, passing: list[FeatureSpec | None]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"seed": 1, "spec": world.raw_spec}), encoding="utf-8")
    assert main([str(tower), "--spec", str(config)]) == 0
    assert main([str(tower)]) == 0
    assert passing == [world.spec, None]


def test_files_that_cannot_be_read_or_written_are_exit_2(
    tower: Path,
    ranker: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unreadable(_: Path) -> dict[str, str]:
        raise PermissionError(13, "Permission denied", "variables")

    monkeypatch.setattr(verify, "file_digests", unreadable)
    assert main([str(tower)]) == 2
    error = capsys.readouterr().err
    assert error == "user_tower/1 cannot be verified: [Errno 13] Permission denied: 'variables'\n"
    monkeypatch.setattr(verify, "verify_export", lambda *_, **__: {"files": {}})
    (tower / BLESSING_FILE).unlink()

    def full(*_: Any, **__: Any) -> None:
        raise UserError("It cannot be written.")

    monkeypatch.setattr(verify, "bless", full)
    assert main([str(tower)]) == 2
    assert "user_tower/1 cannot be verified: It cannot be written." in capsys.readouterr().err
    assert main([str(ranker.parent.parent)]) == 3  # a refusal weighs more
    assert "ranker_tab 1/1 refused: the file " in capsys.readouterr().out.splitlines()[-1]


def test_folders_of_every_level_are_understood(exports: Path) -> None:
    every = [
        exports / kind / "1" for kind in ("foundation", "item_tower", "ranker_tab 1", "user_tower")
    ]
    assert find_exports(exports) == every
    assert find_exports(exports / "foundation") == every[:1]
    assert find_exports(every[0]) == every[:1]


def test_versions_are_taken_in_numeric_order_and_others_are_skipped(tmp_path: Path) -> None:
    for name in ("10", "9", ".staging-11-1", "rolled-back-12"):
        (tmp_path / "model" / name).mkdir(parents=True)
    assert [p.name for p in find_exports(tmp_path)] == ["9", "10"]


def truncate_variables(folder: Path) -> None:
    data = next((folder / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-100])


def remove_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def change_variables(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Other variables, with the right checksums; `change` gets name -> values and keeps shapes."""
    prefix = str(folder / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {k: reader.get_tensor(k) for k in reader.get_variable_to_shape_map()}
    names = verify_child.variable_names(reader)
    change({names.get(key, key): values for key, values in tensors.items()})
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(v) for v in tensors.values()],
    )


def poison_variable(folder: Path, value: float) -> None:
    """One number of one table is another one."""

    def change(named: dict[str, np.ndarray]) -> None:
        next(named[n] for n in sorted(named) if n.endswith("table_4"))[5, 2] = value

    change_variables(folder, change)


def largest(named: dict[str, np.ndarray], wanted: Callable[[str], bool]) -> np.ndarray:
    """The largest matrix of some variables."""
    matrices = {n: v for n, v in named.items() if isinstance(v, np.ndarray) and v.ndim == 2}
    of = [v for n, v in matrices.items() if wanted(n) and v.dtype == np.float32]
    return max(of, key=lambda values: values.size)


def change_weight(folder: Path) -> None:
    """One weight of a layer by 1 %, a mean one of those that are not small."""

    def change(named: dict[str, np.ndarray]) -> None:
        kernel = largest(named, lambda name: "table_" not in name).reshape(-1)
        order = np.argsort(np.abs(kernel))
        kernel[order[3 * len(order) // 4]] *= 1.01

    change_variables(folder, change)


def swap_rows(folder: Path, held: np.ndarray | None = None) -> None:
    """Two rows of a table; those that hold two given ones (2, d)."""

    def change(named: dict[str, np.ndarray]) -> None:
        table = next(named[n] for n in sorted(named) if n.endswith("table_4"))
        rows = [10, 11]
        if held is not None:
            rows = [int(np.flatnonzero((table == row).all(axis=1))[0]) for row in held]
        table[rows] = table[rows[::-1]]

    change_variables(folder, change)


def renew_digest(folder: Path) -> None:
    """As if the exporter had written these variables."""
    edit_contract(
        folder, lambda c: c.update(variables_sha256=verify_child.variables_digest(folder))
    )


def damage_graph(folder: Path) -> None:
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:5000])


def edit_graph(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(saved.meta_graphs[0])
    path.write_bytes(saved.SerializeToString())


def remove_signature(folder: Path, name: str = "predict") -> None:
    edit_graph(folder, lambda graph: graph.signature_def.pop(name))


def change_method(folder: Path) -> None:
    def edit(graph: Any) -> None:
        graph.signature_def["regress_like"].method_name = "tensorflow/serving/predict"

    edit_graph(folder, edit)


def split_input(folder: Path) -> None:
    def edit(graph: Any) -> None:
        graph.signature_def["regress"].inputs["inputs"].name = "another:0"

    edit_graph(folder, edit)


def rename_output(folder: Path) -> None:
    def edit(graph: Any) -> None:
        outputs = graph.signature_def["classify"].outputs
        outputs["probabilities"].CopyFrom(outputs["scores"])
        del outputs["scores"]

    edit_graph(folder, edit)


def change_shape(folder: Path) -> None:
    def edit(graph: Any) -> None:
        graph.signature_def["predict"].outputs["representation"].tensor_shape.dim[1].size = 7

    edit_graph(folder, edit)


def use_op(folder: Path, op: str) -> None:
    def edit(graph: Any) -> None:
        functions = graph.graph_def.library.function
        next(n for f in functions for n in f.node_def if n.op == "GatherV2").op = op

    edit_graph(folder, edit)


def change_vocabulary(folder: Path, change: Callable[[Any, Any], None]) -> None:
    """Changes keys and ids of the lookup table in place."""

    def edit(graph: Any) -> None:
        constants = [n.attr["value"].tensor for n in graph.graph_def.node if n.op == "Const"]
        held = {tuple(a.ravel().tolist()): t for t in constants for a in [tf.make_ndarray(t)]}
        ((found_keys, found_ids),) = verify_child.lookup_tables(graph)
        keys, ids = np.array(found_keys, object), np.array(found_ids)
        change(keys, ids)
        held[tuple(found_keys)].CopyFrom(tf.make_tensor_proto(keys, tf.string))
        held[tuple(found_ids)].CopyFrom(tf.make_tensor_proto(ids))

    edit_graph(folder, edit)


def rename_last_key(folder: Path) -> None:
    def change(keys: Any, ids: Any) -> None:
        keys[-1] += b" renamed"

    change_vocabulary(folder, change)


def shift_ids(folder: Path) -> None:
    """What the encoding itself must show, where the contract tells no digest."""

    def change(keys: Any, ids: Any) -> None:
        ids[ids > 1] -= 1

    change_vocabulary(folder, change)
    edit_contract(folder, lambda contract: contract.pop("vocabulary_sha256"))


def edit_contract(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "assets.extra" / "contract.json"
    contract = json.loads(path.read_text("utf-8"))
    edit(contract)
    path.write_text(json.dumps(contract), encoding="utf-8")


def change_golden(folder: Path, key: str, change: Callable[[Any], Any]) -> None:
    path = folder / "assets.extra" / "golden.npz"
    with np.load(path) as held:
        arrays = dict(held)
    changed = change(copies.copy(arrays.pop(key)))
    if changed is not None:
        arrays[key] = changed
    np.savez(path, **arrays)


def shift_score(folder: Path) -> None:
    def change(scores: np.ndarray) -> np.ndarray:
        scores[3, 2] += 1e-4
        return scores

    change_golden(folder, "expected/serving_default/representation", change)


def drop_row(folder: Path) -> None:
    for part in ("expected", "allowed"):
        change_golden(folder, f"{part}/predict/representation", lambda scores: scores[:-1])


def drop_request(folder: Path) -> None:
    change_golden(folder, "requests/regress_like/inputs", lambda _: None)


def expect_another_id(folder: Path) -> None:
    def change(ids: np.ndarray) -> np.ndarray:
        ids[7] += 1
        return ids

    change_golden(folder, "expected/encode/user_id", change)


def expect_another_class(folder: Path) -> None:
    def change(classes: np.ndarray) -> np.ndarray:
        return np.where(classes == b"like", b"love", classes)

    change_golden(folder, "expected/classify/classes", change)


def ask_with_nan(folder: Path) -> None:
    def change(held: np.ndarray) -> np.ndarray:
        values = verify_child.array_of(held.tobytes()).copy()
        values[4] = np.nan
        return np.frombuffer(tf.make_tensor_proto(values).SerializeToString(), np.uint8)

    change_golden(folder, "requests/predict/UR", change)


def damage_golden(folder: Path) -> None:
    path = folder / "assets.extra" / "golden.npz"
    path.write_bytes(path.read_bytes()[:200])


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "assets.extra" / name).unlink()


def damage_warmup(folder: Path) -> None:
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.write_bytes(path.read_bytes()[:-3])


TOWER: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated variables": (
        truncate_variables,
        r"^cannot be loaded: the variables are damaged \(Read less bytes than requested\)$",
    ),
    "no variables": (
        remove_variables,
        r"^cannot be loaded: the variables are damaged \(.*variables",
    ),
    "NaN weight": (
        lambda folder: poison_variable(folder, np.nan),
        r"^the variable '.*table_4' holds NaN, first at \[5, 2\] of \[\d+, 8\]$",
    ),
    "infinite weight": (
        lambda folder: poison_variable(folder, -np.inf),
        r"^the variable '.*table_4' holds infinity, first at \[5, 2\] of ",
    ),
    "damaged graph": (damage_graph, "^cannot be loaded: saved_model.pb is damaged"),
    "no signature": (remove_signature, "^the signature 'predict' is missing$"),
    "other shape": (
        change_shape,
        r"^'representation' of the outputs of 'predict' is float32 \(None, 7\), not float32 \(N",
    ),
    "unknown op": (
        lambda folder: use_op(folder, "MyGather"),
        "^ops that a stock server does not have: MyGather$",
    ),
    "python op": (
        lambda folder: use_op(folder, "PyFunc"),
        "^ops that a stock server does not have: PyFunc$",
    ),
    "renamed key": (rename_last_key, "^the vocabulary changed since training: no lookup table "),
    "other score": (shift_score, "^the scores differ .* by 0.0001 in row 3 "),
    "another weight": (change_weight, "^the variables are not those that the exporter wrote: "),
    "swapped rows": (swap_rows, "^the variables are not those that the exporter wrote: "),
    "other rows": (drop_row, r"^'representation' of 'predict' is float32 \(41, 6\), "),
    "no golden": (remove("golden.npz"), "^there is no golden file "),
    "damaged golden": (damage_golden, "^the golden file cannot be read"),
    "no contract": (remove("contract.json"), "^there is no contract "),
    "older contract": (
        lambda folder: edit_contract(folder, lambda contract: contract.pop("columns")),
        r"^the contract cannot be read \('columns'\)$",
    ),
    "older schema": (
        lambda folder: edit_contract(folder, lambda contract: contract.update(schema=1)),
        "^the contract has schema 1, and 2 is what is known here: .* export the model again$",
    ),
    "nothing allowed": (
        lambda folder: change_golden(folder, "allowed/predict/representation", lambda _: None),
        "^the golden file does not tell what 'representation' of 'predict' may differ$",
    ),
}

RANKER: dict[str, tuple[Callable[[Path], None], str]] = {
    "no rank": (
        lambda folder: remove_signature(folder, "rank"),
        "^the signature 'rank' is missing",
    ),
    "other method": (
        change_method,
        "^the signature 'regress_like' has the method name 'tensorflow/serving/predict' instead of "
        "'tensorflow/serving/regress'",
    ),
    "two inputs": (split_input, "^classify and regress do not share one input: .*another:0"),
    "other output": (
        rename_output,
        r"^'classify' has the outputs \['classes', 'probabilities'\], not \['classes', 'scores'\]",
    ),
    "no request": (drop_request, "^the golden file holds no request for .* 'regress_like'$"),
    "shifted ids": (
        shift_ids,
        r"^'encode' gives feature '\w+' another id in row \d+: expected \d+, found \d+; the voc",
    ),
    "another id": (
        expect_another_id,
        "^'encode' gives feature 'user_id' another id in row 7: expected .*changed since training$",
    ),
    "another class": (
        expect_another_class,
        "^'classes' on 'classify' differs in row 0, place 1: b'like' instead of b'love'$",
    ),
    "NaN in a representation": (
        ask_with_nan,
        r"^the golden request fails on 'predict': .*Representations UR must hold finite .* \[4\]",
    ),
}


@pytest.mark.parametrize("kind", ["foundation", "ranker_tab 1", "user_tower", "item_tower"])
def test_a_blessing_tells_what_was_compared(kind: str, exports: Path) -> None:
    report = read_blessing(exports / kind / "1", kind)
    assert report["rows_compared"] == 41 and report["largest_share"] <= 1
    timed = {name.partition(",")[0] for name in report["latency_ms"]}
    assert timed == report["signatures"].keys() & set(verify_child.TIMED)
    assert {"serving_default", "predict"} <= timed
    cpp = report["cpp_loader"]
    assert report["cpp_loader_skipped"] if cpp is None else cpp["largest_share"] <= 1


@pytest.mark.parametrize("kind", ["user_tower", "ranker_tab 1"])
@pytest.mark.parametrize("poison", ["weight", "rows"])
def test_scores_alone_tell_a_poisoned_export(
    kind: str, poison: str, exports: Path, world: Any, models: Any, tmp_path: Path
) -> None:
    """What an exporter that mixed its own variables up would write."""
    folder = tmp_path / kind / "1"
    shutil.copytree(exports / kind / "1", folder)
    if poison == "weight":
        change_weight(folder)
    else:  # of two users that golden rows are of
        users = [f.name for f in world.encoder.layout.single].index("user_id")
        ids = [
            i for i in dict.fromkeys(np.asarray(world.batch["ids"])[:, users].tolist()) if i >= 0
        ]
        held = models[kind].backbone.embeddings.read_table("user_id")[ids[:2]]
        swap_rows(folder, held.reshape(2, -1))
    renew_digest(folder)
    with pytest.raises(verify_child.Refused, match="^the scores differ from the Keras model's"):
        verify_child.verify(folder, [])


@pytest.mark.parametrize(
    ("of", "bound", "expected", "allowed"),
    [
        ("value", 0.0, 50.0, 4 * EPS * 50),
        ("value", 1e-5, 50.0, 1e-5 + 4 * EPS * 50),
        ("value", 1e-5, -50.0, 1e-5 + 4 * EPS * 50),
        ("logit", 1e-5, 0.5, 0.25e-5 + 4 * EPS * 0.5),
        ("logit", 1e-5, 0.001, 0.001 * 0.999e-5 + 4 * EPS * 0.001),
        ("logit", 1e-5, 1.0, 4 * EPS),
    ],
)
def test_what_is_allowed_follows_the_value(
    of: str, bound: float, expected: float, allowed: float
) -> None:
    wanted = np.array([[expected]], np.float32)
    limit = verify_child.allowed_difference(wanted, bound, of)
    np.testing.assert_allclose(limit, allowed, rtol=1e-6)
    for share in (0.9, 1.1):
        found = {"v": wanted.astype(np.float64) + share * limit}
        ends = found, {"v": wanted.astype(np.float64)}, {"v": limit}
        if share < 1:
            assert verify_child.compare_outputs("predict", *ends).share == pytest.approx(
                share, rel=1e-6
            )
        else:
            with pytest.raises(verify_child.Refused, match=r"scores differ.*allowed "):
                verify_child.compare_outputs("predict", *ends)


@pytest.mark.parametrize("cause", TOWER)
def test_reason_of_refusal(cause: str, tower: Path) -> None:
    damage, message = TOWER[cause]
    damage(tower)
    with pytest.raises(verify_child.Refused, match=message):
        verify_child.verify(tower, [])


@pytest.mark.parametrize("cause", RANKER)
def test_reason_of_refusal_of_a_ranker(cause: str, ranker: Path) -> None:
    damage, message = RANKER[cause]
    damage(ranker)
    with pytest.raises(verify_child.Refused, match=message):
        verify_child.verify(ranker, [])


@pytest.mark.slow  # a process for each
@pytest.mark.parametrize("cause", TOWER)
def test_every_refusal_is_exit_3_with_its_reason_last(
    cause: str, tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = TOWER[cause]
    damage(tower)
    assert main([str(tower)]) == 3
    last = capsys.readouterr().out.splitlines()[-1].removeprefix("user_tower/1 refused: ")
    with pytest.raises(verify_child.Refused, match=message):
        raise verify_child.Refused(last)


def test_the_digest_of_a_vocabulary_knows_no_order_but_every_entry() -> None:
    keys, ids = [b"a", b"bc", b""], [1, 2, 3]
    digest = verify_child.vocabulary_sha256(keys, ids)
    assert digest == verify_child.vocabulary_sha256(keys[::-1], ids[::-1])
    others = [([b"ab", b"c", b""], ids), (keys, [2, 1, 3]), (keys[:2], ids[:2]), (keys, [1, 2, -3])]
    assert digest not in [verify_child.vocabulary_sha256(*other) for other in others]


def test_the_lookup_table_of_a_graph_is_the_encoders(exports: Path, world: Any) -> None:
    graph = verify_child.read_graph(exports / "foundation" / "1")
    ((keys, ids),) = verify_child.lookup_tables(graph)
    wanted_keys, wanted_ids = world.encoder.vocabulary
    expected = dict(zip((key.encode() for key in wanted_keys), wanted_ids, strict=True))
    assert dict(zip(keys, ids, strict=True)) == expected and len(ids) > 20


def test_reading_the_lookup_tables_leaves_the_graph_as_it_is(exports: Path) -> None:
    graph = verify_child.read_graph(exports / "user_tower" / "1")
    before = graph.SerializeToString(deterministic=True)
    assert list(verify_child.lookup_tables(graph))
    assert graph.SerializeToString(deterministic=True) == before


def test_an_unknown_rank_is_told_from_a_scalar() -> None:
    unknown = meta_graph_pb2.TensorInfo(dtype=tf.float32.as_datatype_enum)
    unknown.tensor_shape.unknown_rank = True
    scalar = meta_graph_pb2.TensorInfo(dtype=tf.float32.as_datatype_enum)
    assert verify_child.spec_of(unknown) == {"dtype": "float32", "shape": None}
    assert verify_child.spec_of(scalar) == {"dtype": "float32", "shape": []}


def test_a_process_that_does_not_answer_is_refused(
    tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setattr(verify, "_CHILD", child)
    monkeypatch.setattr(verify, "ANSWER_S", 0.3)
    with pytest.raises(ExportRefused, match="^the verifying process did not answer in 0.3 s$"):
        verify_export(tower)


def test_both_processes_run_side_by_side_where_there_is_room(
    tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify.os, "cpu_count", lambda: 2)
    assert verify._side_by_side(tower)
    monkeypatch.setattr(verify, "_SMALL_BYTES", 1000)
    assert not verify._side_by_side(tower)
    monkeypatch.setattr(verify, "_SMALL_BYTES", 1 << 30)
    monkeypatch.setattr(verify.os, "cpu_count", lambda: 1)
    assert not verify._side_by_side(tower)


def test_a_refusal_in_cpp_says_so(tower: Path) -> None:
    try:
        build_loader()
    except UserError as error:
        pytest.skip(str(error))
    shift_score(tower)
    with pytest.raises(
        ExportRefused, match=r"^in the C\+\+ loader, the scores differ .* in row 3 "
    ):
        verify._in_cpp(tower)


def test_without_a_loader_that_starts_the_report_says_that_cpp_was_skipped(
    tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise UserError("The C++ loader cannot be compiled here.", received="no compiler")

    def broken(*_: Any, **__: Any) -> None:
        raise UserError("The C++ loader does not work.", received="exit code 127")

    monkeypatch.setattr(verify, "build_loader", missing)
    assert verify._in_cpp(tower) == {
        "cpp_loader": None,
        "cpp_loader_skipped": "The C++ loader cannot be compiled here. Received: no compiler",
    }
    monkeypatch.setattr(verify, "build_loader", lambda: None)
    monkeypatch.setattr(verify, "run_cpp", broken)
    assert verify._in_cpp(tower) == {
        "cpp_loader": None,
        "cpp_loader_skipped": "The C++ loader does not work. Received: exit code 127",
    }


def test_warmup_replays_real_rows_on_the_default_signature(tower: Path) -> None:
    verified_columns = ("user_id", "income", "age", "segments", "history", "pages")
    records = [inputs for signature, inputs in read_warmup(tower) if signature == "serving_default"]
    assert len(records) == 5
    for inputs in records:
        assert inputs.keys() == {"examples"}
        (example,) = verify_child.array_of(inputs["examples"])
        columns = set(tf.train.Example.FromString(example).features.feature)
        assert columns and columns <= set(verified_columns)


def test_warmup_of_another_kind_is_refused(tower: Path) -> None:
    with tf.io.TFRecordWriter(str(tower / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(b"\x2a\x00")  # a PredictionLog that holds a SessionRun request
    with pytest.raises(ExportRefused, match="record 0 is no "):
        verify_export(tower)
