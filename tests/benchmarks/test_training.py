"""The benchmark's result, from tiny networks and a peer that is a stub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import training
from benchmarks.peers.networks import Network, flops
from lfm4ads_tf.errors import UserError

SMALL = Network("dcnv2", features=4, rows=30, dim=4, tasks=2, units=(8,), cross_rank=2)


@pytest.mark.slow
def test_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = training.Plan({"DCNv2": SMALL}, {}, batches=(16, 32), rows=128, rounds=3, warmup=1)
    plan = replace(plan, turn_seconds=0.001)
    monkeypatch.setattr(training, "plan_of", lambda _: plan)
    path = tmp_path / "folder" / "result.json"
    assert training.main(["--json", str(path), "--peers", "none"]) == 0
    result = json.loads(path.read_text("utf-8"))
    assert [(run["model"], run["batch"]) for run in result["runs"]] == [
        ("DCNv2", 16),
        ("DCNv2", 32),
    ]
    for run in result["runs"]:
        assert run["model"] == "DCNv2"
        assert set(run["examples_per_s"]) == {"ours", "ours_bfloat16"}
        assert min(run["examples_per_s"].values()) > 0
        own = flops(SMALL.kernels())
        assert run["flops_per_example"] == {"ours": own, "ours_bfloat16": own}
        assert run["ratio"] == {} and run["reason"] == {} and run["ours_for"] == {}
        assert 0 < run["matmul_share"] < 1
        assert run["spread"]["ours"] >= 0


def test_missing_environment_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", str(tmp_path / "r.json"), "--environments", str(tmp_path)]
    assert training.main(arguments) == 2
    assert "python -m benchmarks.environments" in capsys.readouterr().err


class _Stub:
    """Stands in for a worker; a step takes as long as it is told."""

    def __init__(self, name: str, network: Network, seconds: float) -> None:
        self.name, self._network, self._seconds = name, network, seconds

    def receive(self) -> dict[str, object]:
        return {"kernels": self._network.kernels(), "about": "stub"}

    def ask(self, request: dict[str, int]) -> dict[str, float]:
        if self._seconds == 0.0:
            raise training.WorkerError("it broke")
        return {"seconds": self._seconds * request["n"], "loss": 0.5}


def test_ratios_are_against_the_peers_network(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(SMALL, cross_rank=None, tasks=1)
    seconds = {"ours_0": 0.1, "ours_1": 0.2, "tfrs": 0.3, "deepctr": 0.8, "keras_rs": 0.0}
    seconds["ours_bfloat16"] = 0.05
    known = {
        "ours_bfloat16": SMALL,
        "ours_0": SMALL,
        "ours_1": other,
        "tfrs": SMALL,
        "deepctr": other,
        "keras_rs": SMALL,
    }

    class Made(_Stub):
        def __init__(self, name: str, command: list[str], **_: object) -> None:
            super().__init__(name, known[name], seconds[name])

        def send(self, request: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(training, "Worker", Made)
    monkeypatch.setattr(training.environments, "python_of", lambda *_: Path("python"))
    peers: dict[str, Network | str] = {
        "tfrs": SMALL,
        "deepctr": other,
        "keras_rs": SMALL,
        "torchrec": "has none",
    }
    plan = training.Plan({"DCNv2": SMALL}, {"DCNv2": peers}, batches=(10,), rows=20, rounds=2)
    (run,) = training.run(plan, say=lambda _: None)["runs"]
    rates = run["examples_per_s"]
    assert rates["ours"] == pytest.approx(100.0)
    assert rates["ours_bfloat16"] == pytest.approx(200.0)
    assert rates["tfrs"] == pytest.approx(10 / 0.3)
    assert run["ratio"]["tfrs"] == pytest.approx(3.0)
    assert run["ours_for"]["deepctr"]["examples_per_s"] == pytest.approx(50.0)
    assert run["ratio"]["deepctr"] == pytest.approx(4.0)
    assert run["flops_per_example"]["deepctr"] == flops(other.kernels())
    for peer in ("keras_rs", "torchrec"):
        assert all(run[k][peer] is None for k in ("examples_per_s", "ratio", "flops_per_example"))
    assert run["reason"] == {"keras_rs": "it broke", "torchrec": "has none"}
    assert run["matmul_share"] == pytest.approx(1.0)
    assert training.table({"runs": [run]}).row_count == 7


def test_a_peer_that_built_another_network_is_out() -> None:
    entrant = training.Entrant(_Stub("tfrs", replace(SMALL, units=(9,)), 0.1), SMALL)  # type: ignore[arg-type]
    training._guard(entrant, lambda: training._prepare(entrant, lambda _: None))
    assert entrant.failure is not None and "operations per example" in entrant.failure


def test_pairs_against_another_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {"ours_this": 0.1, "ours_other": 0.2}
    where: dict[str, Path] = {}

    class Made(_Stub):
        def __init__(self, name: str, command: list[str], *, folder: Path, **_: object) -> None:
            super().__init__(name, SMALL, seconds[name])
            where[name] = folder

        def send(self, request: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(training, "Worker", Made)
    path = tmp_path / "result.json"
    arguments = ["--json", str(path), "--against", str(tmp_path)]
    assert training.main(arguments) == 2  # the folder is no checkout
    assert "git worktree add" in capsys.readouterr().err
    worker = tmp_path / "benchmarks" / "peers" / "ours_worker.py"
    worker.parent.mkdir(parents=True)
    worker.touch()
    plan = training.Plan({"DCNv2": SMALL}, {}, batches=(10,), rows=20, rounds=5, warmup=1)
    monkeypatch.setattr(training, "plan_of", lambda _: plan)
    assert training.main(arguments) == 0
    assert where == {"ours_this": training.environments.ROOT, "ours_other": tmp_path}
    (run,) = json.loads(path.read_text("utf-8"))["runs"]
    assert run["ratios"] == pytest.approx([2.0] * 5) and run["ratio"] == pytest.approx(2.0)
    assert run["examples_per_s"] == pytest.approx({"this": 100.0, "other": 50.0})
    assert "DCNv2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "models", "batches", "rounds"),
    [
        ([], ["DCNv2", "MMoE", "PLE"], (1024, 4096, 16_384), 9),
        (["--quick"], ["DCNv2"], (4096,), 7),
        (["--models", "PLE", "MMoE", "--batches", "64"], ["PLE", "MMoE"], (64,), 9),
        (["--against", "x"], ["DCNv2", "MMoE"], (4096,), 15),
    ],
)
def test_plans_of_the_command_line(
    arguments: list[str],
    models: list[str],
    batches: tuple[int, ...],
    rounds: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plans: list[training.Plan] = []

    def kept(plan: training.Plan, *_: object) -> None:
        plans.append(plan)
        raise UserError("enough")

    monkeypatch.setattr(training, "run", kept)
    monkeypatch.setattr(training, "run_against", kept)
    assert training.main(["--json", str(tmp_path / "r.json"), *arguments]) == 2
    (plan,) = plans
    assert list(plan.networks) == models and set(plan.peers) == set(models)
    assert tuple(plan.batches) == batches and plan.rounds == rounds
