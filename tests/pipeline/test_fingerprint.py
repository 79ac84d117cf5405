from __future__ import annotations

from pathlib import Path
from typing import Any

from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.pipeline.prepare import source_fingerprint
from lfm4ads_tf.pipeline.run import fingerprint


def spec_of(log: Any = None, keys: Any = None, **more: Any) -> FeatureSpec:
    return parse_spec(
        {
            "name": "s",
            "log": {"files": ["log.csv"], **(log or {})},
            "tables": {"t": {"files": ["log.csv"], "owner": "user", "key": "u"}},
            "keys": {"user": "u", "item": "i", "time": "t", **(keys or {})},
            "tasks": {"click": {"label": "click", "unknown": more.pop("unknown", [])}},
            "missing": more.pop("missing", []),
            "split": {"by": "day", "train_until": 6, "valid_until": 7},
            "period": {"by": "day", **more.pop("period", {})},
            "features": {
                "x": {"owner": "context", "kind": "numeric", **more},
                "raw": {"owner": "context", "kind": "numeric", "standardize": False},
                "v": {"owner": "context", "kind": "pretrained", "size": 2},
            },
        }
    )


def test_data_encoded_before_some_keys_of_the_spec_are_known_again(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("u,i,t,day,click,x,raw\n")
    found = source_fingerprint(spec_of(), tmp_path)
    then = spec_of().model_dump(mode="json", exclude={"run", "thresholds", "skew"})
    del then["period"]["first_at_most"]
    for name in ("x", "raw"):
        del then["features"][name]["bound"]
    text = ("quoting", "escape", "newlines_in_cells")
    for section, key in [
        (then, "missing"),
        (then["tasks"]["click"], "unknown"),
        (then["log"], "columns"),
        (then["tables"]["t"], "columns"),
        (then["tables"]["t"], "key_parts"),
        (then["features"]["v"], "columns"),
        *((then["keys"], key) for key in ("user_parts", "item_parts", "shuffle")),
        *((table, key) for table in (then["log"], then["tables"]["t"]) for key in text),
    ]:
        del section[key]
    stat = log.stat()
    assert found == fingerprint([then, [("log.csv", stat.st_size, stat.st_mtime_ns)] * 2])
    same, others = (
        [{"bound": 10}, {"period": {"first_at_most": 3}}, {"log": {"quoting": "standard"}}],
        [{"bound": 9}, {"bound": None}],
    )
    others += [
        {"log": {key: value}} for key, value in (("quoting", "none"), ("escape", "backslash"))
    ]
    others += [{"period": {"first_at_most": 1}}, {"missing": ["-"]}, {"unknown": [-1]}]
    assert {source_fingerprint(spec_of(**more), tmp_path) for more in same} == {found}
    others.append({"log": {"columns": ["u", "i", "t", "day", "click", "x", "raw"]}})
    others.append({"keys": {"user": ["u", "i"]}})
    assert len({found, *(source_fingerprint(spec_of(**more), tmp_path) for more in others)}) == 10


def test_every_seed_of_a_shuffled_log_is_another_order(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("u,i,day,click,x,raw\n")
    period = {"by": None, "blocks": 4}
    keys: list[dict[str, Any]] = [{"time": "none"}]
    keys += [{"time": "none", "shuffle": seed} for seed in (0, 1)]
    specs = [spec_of(keys=each, period=period) for each in keys]
    assert len({source_fingerprint(spec, tmp_path) for spec in specs}) == 3
