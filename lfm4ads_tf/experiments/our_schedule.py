"""The experiment on the pipeline: point-in-time data, snapshots and representations."""

from __future__ import annotations

import shutil
from pathlib import Path

from lfm4ads_tf.config import Resolved
from lfm4ads_tf.experiments.public_method import PublicMethod
from lfm4ads_tf.experiments.schedule import MetricsEntry
from lfm4ads_tf.pipeline.downstream_plan import downstream_scenarios, run_methods
from lfm4ads_tf.pipeline.extract import extract
from lfm4ads_tf.pipeline.prepare import prepare
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.retrieval_model import retrieval_methods
from lfm4ads_tf.pipeline.retrieve import train_retrieval
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.pipeline.transfer import train_downstream

# Weights of the many downstream models; their results and predictions are kept.
_HEAVY = ("weights", "best", "checkpoint")


class OurSchedule:
    """The public network trained as every other model here: `OUT/run/` is a run folder.

    Args:
        resolved: Feature spec and run configuration; its methods and scenarios are trained.
        data_dir: Folder of the official files.
        out: `OUT`.
        overwrite: Whether a run folder of another configuration is emptied.
    """

    name = "ours"

    def __init__(
        self, resolved: Resolved, data_dir: Path, out: Path, *, overwrite: bool = False
    ) -> None:
        self._data_dir = data_dir
        # The experiment shows its own progress.
        self._run = Run(out / "run", resolved, overwrite=overwrite, quiet=True)
        self._downstream = {method.name: method for method in run_methods(self._run)}
        self._retrieval = {method.name: method for method in retrieval_methods(self._run)}

    def prepare(self) -> dict[str, int]:
        """Encodes the data; returns the rows of each split."""
        self._run.begin()
        prepare(self._run, self._data_dir)
        downstream_scenarios(self._run)  # a wrong tab is refused before anything is trained
        rows: dict[str, int] = self._run.cache.manifest["rows"]
        return rows

    def test_rows(self, tab: str) -> int:
        """Test rows of a tab: its weight in the mean over tabs."""
        return len(self._run.cache.rows_of("test", tab))

    def upstream(self, seed: int) -> list[MetricsEntry]:
        """Trains the upstream of a trial and extracts its representations."""
        pretrain(self._run, seed)
        extract(self._run, seed)
        return _selected(self._run.upstream(seed))

    def method(self, seed: int, tab: str, method: PublicMethod) -> list[MetricsEntry]:
        """Trains one model of a trial, or reads its results."""
        run = self._run
        if method.usage == "model":
            folder = run.retrieval(tab, method.name, seed)
            train_retrieval(run, tab, self._retrieval[method.name], seed, scored=[tab])
        else:
            folder = run.downstream(tab, method.name, seed)
            train_downstream(run, tab, self._downstream[method.name], seed)
        for name in _HEAVY:
            shutil.rmtree(folder / name, ignore_errors=True)
        return _selected(folder)


def _selected(folder: Path) -> list[MetricsEntry]:
    """Entries over all rows, with the state at the end of training; none of a skipped model."""
    if not (folder / "results.json").exists():
        return []
    entries: list[MetricsEntry] = stored_results(folder / "results.json")["entries"]
    return [e for e in entries if e["slice"] == "all" and e["refresh"] == "frozen"]
