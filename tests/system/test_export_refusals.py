"""A refused or failed export costs neither the other exports nor the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export import stage
from lfm4ads_tf.export.exporter import WrittenExport
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.version_folders import version_folders
from tests.quick_proof import quick_proof

LOST = {
    "user_tower": ("failed", TypeError("unsupported operand")),
    "ranker_home": ("refused", ExportRefused("The export 'ranker_home' is refused: <scores>")),
    "item_tower": ("failed", UserError("It cannot be made.", received="x", fix="mend it")),
}


@pytest.fixture
def quickly_proven() -> Iterator[None]:
    with quick_proof():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_proven")
def test_the_others_and_the_report_are_written(
    cli: Callable[..., Any],
    shop_run: Any,
    shop_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(shop_run[0], out, ignore=shutil.ignore_patterns("report.html", "snapshots"))
    for name in (*LOST, "foundation"):
        shutil.rmtree(out / "exports" / name)  # these are due
    made = stage.write_export

    def losing(request: ExportRequest) -> WrittenExport:
        if request.name in LOST:
            raise LOST[request.name][1]
        return made(request)

    monkeypatch.setattr(stage, "write_export", losing)
    selected = ("--seeds", 2, "--scenarios", "home")
    done = cli("run", *shop_arguments, "--out", out, *selected)
    assert done.code == 3, done.text
    told = " ".join(done.err.split())
    assert "Export refused: 3 of 6 exports published nothing: user_tower, item_tower, " in told
    for _, reason in LOST.values():
        assert " ".join(str(reason).split()) in told
    assert f"report: {out / 'report.html'}" in " ".join(done.out.split()).replace("/ ", "/")
    # a defect's traceback is in the log
    assert "TypeError: unsupported operand" in (out / "log.txt").read_text("utf-8")

    assert list(version_folders(out / "exports" / "foundation")) == [1]
    assert not any((out / "exports" / name).exists() for name in LOST)
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["results"]
    states = {e["model"]: (e["state"], e["version"]) for e in metrics["exports"]}
    published = ("foundation", "retrieval_exact", "retrieval_ann")
    assert states == {
        **{name: ("published", 1) for name in published},
        **{name: (state, None) for name, (state, _) in LOST.items()},
    }
    page = (out / "report.html").read_text("utf-8")
    assert "The export ranker_<wbr>home was refused: " in page and "&lt;scores&gt;" in page
    assert "was failed" not in page and 'id="exports"' in page

    for name in ("user_tower", "ranker_home"):
        monkeypatch.delitem(LOST, name)
    monkeypatch.setattr(stage._Exports, "is_due", lambda self, name, _: name == "item_tower")
    mendable = cli("export", *shop_arguments, "--out", out, *selected)
    assert mendable.code == 2 and "Fix: mend it" in mendable.err

    monkeypatch.undo()
    monkeypatch.setattr(stage, "write_export", lambda *_, **__: None)  # it is up to date
    again = cli("export", *shop_arguments, "--out", out, *selected)
    assert again.code == 0, again.text
    later = json.loads((out / "metrics.json").read_text("utf-8"))
    assert {e["state"] for e in later["exports"]} == {"published"}
    assert later["results"] == metrics["results"]
