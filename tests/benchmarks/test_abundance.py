"""The benchmark of information abundance, on a tiny table."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.abundance import FEW, OURS, REST, SHARDED, SVD, main


def test_all_ways_tell_the_same(tmp_path: Path) -> None:
    file = tmp_path / "made" / "result.json"
    assert main(["--rows", "3000", "--width", "8", "--rounds", "1", "--json", str(file)]) == 0
    found = json.loads(file.read_text("utf-8"))
    assert set(found) == {"spread", "collapsed"}
    for one in found.values():
        assert set(one["seconds"]) == {OURS, SHARDED, SVD} and one["apart"] < 1e-9
        assert one["svd_over_ours"] == one["seconds"][SVD] / one["seconds"][OURS]
    assert 7 < found["spread"]["abundance"][SVD] <= 8
    assert FEW - 0.5 < found["collapsed"]["abundance"][OURS] < FEW + 100 * REST
