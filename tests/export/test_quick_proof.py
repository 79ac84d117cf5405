"""The quick proof of other tests' exports refuses what the real one does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export import verify
from lfm4ads_tf.export.verify import verify_export
from tests.quick_proof import quick_proof


def test_it_passes_a_sound_export_and_refuses_another(exports: Path, tmp_path: Path) -> None:
    folder = tmp_path / "user_tower" / "1"
    shutil.copytree(exports / "user_tower" / "1", folder)
    before = verify._in_clean_process, verify._in_cpp
    with quick_proof():
        report = verify_export(folder)
        assert report["rows_compared"] == 41 and report["cpp_loader"] is None
        path = folder / "assets.extra" / "contract.json"
        contract = json.loads(path.read_text("utf-8"))
        contract["signatures"].pop("predict")
        path.write_text(json.dumps(contract), "utf-8")
        with pytest.raises(ExportRefused, match="signature 'predict' is not in the contract"):
            verify_export(folder)
    assert (verify._in_clean_process, verify._in_cpp) == before


def test_the_exports_of_fixtures_hold_one_real_proof(exports: Path) -> None:
    told = {
        kind.name: json.loads((kind / "1" / "blessing.json").read_text("utf-8"))
        for kind in exports.iterdir()
    }
    assert "a quick proof" in told["item_tower"]["cpp_loader_skipped"]
    assert "a quick proof" not in told["ranker_tab 1"].get("cpp_loader_skipped", "")
