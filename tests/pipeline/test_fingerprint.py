from __future__ import annotations

from pathlib import Path
from typing import Any

from lfm4ads_tf.features.spec import FeatureSpec, parse_spec
from lfm4ads_tf.pipeline.prepare import source_fingerprint
from lfm4ads_tf.pipeline.run import fingerprint


def spec_of(**more: Any) -> FeatureSpec:
    return parse_spec(
        {
            "name": "s",
            "log": {"files": ["log.csv"], **more.pop("log", {})},
            "tables": {"t": {"files": ["log.csv"], "owner": "item", "key": "i"}},
            "keys": {"user": "u", "item": "i", "time": "t"},
            "tasks": {"click": {"label": "click", "unknown": more.pop("unknown", [])}},
            "missing": more.pop("missing", []),
            "split": {"by": "day", "train_until": 6, "valid_until": 7},
            "period": {"by": "day", **more.pop("period", {})},
            "features": {
                "x": {"owner": "context", "kind": "numeric", **more},
                "raw": {"owner": "context", "kind": "numeric", "standardize": False},
            },
        }
    )


def test_data_encoded_before_newer_keys_are_known_again(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("u,i,t,day,click,x,raw\n")
    found = source_fingerprint(spec_of(), tmp_path)
    then = spec_of().model_dump(mode="json", exclude={"run", "thresholds", "skew"})
    del then["period"]["first_at_most"]
    for feature in then["features"].values():
        del feature["bound"]
    for table in (then["log"], then["tables"]["t"]):
        for key in ("quoting", "escape", "newlines_in_cells"):
            del table[key]
    del then["missing"], then["tasks"]["click"]["unknown"]
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
    assert len({found, *(source_fingerprint(spec_of(**more), tmp_path) for more in others)}) == 8
