"""A made-up process of a cluster: `python nodes.py FOLDER NUMBER`, without TensorFlow.

NUMBER counts the starts of its task from 0; `Command` makes the command line. Every start appends
a line to `FOLDER/starts.jsonl`. What it does then is in `FOLDER/plan.json`:
task -> one step per start, the last one for all further starts. A step is an exit code, `serve`
(until it is ended), `crash` (SIGKILL), `fork` (a process of its own, then `serve`), or `wait:X:C`
(until the file X is in FOLDER, then the exit code C).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

_LIFELINE = Path(__file__).resolve().parents[2] / "lfm4ads_tf" / "cluster" / "lifeline.py"


def lifeline() -> Any:
    """The module of the package, without the package, whose import takes longer."""
    spec = importlib.util.spec_from_file_location("lifeline", _LIFELINE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Command:
    """The command line of a task's next start.

    Args:
        folder: Where the plan is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts: Counter[str] = Counter()

    def __call__(self, task: object) -> list[str]:
        self._starts[str(task)] += 1
        number = self._starts[str(task)] - 1
        return [sys.executable, "-S", __file__, str(self._folder), str(number)]


def main(folder: Path, number: int) -> int:
    """Notes the start and does what the plan says."""
    lifeline().follow_launcher()
    config = json.loads(os.environ["TF_CONFIG"])
    job, index = config["task"]["type"], config["task"]["index"]
    task = f"{job}:{index}"
    starts = folder / "starts.jsonl"
    threads = {k: v for k, v in os.environ.items() if k.endswith("_THREADS")}
    note = {"task": task, "pid": os.getpid(), "cluster": config["cluster"], "threads": threads}
    with starts.open("a") as stream:
        stream.write(json.dumps(note) + "\n")  # one write of a short line
    plan = json.loads((folder / "plan.json").read_text()).get(task, ["serve"])
    step = plan[min(number, len(plan) - 1)]
    if isinstance(step, int):
        print(f"{task} leaves with {step}", flush=True)
        return step
    if step == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "fork":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "child.pid").write_text(str(child.pid))
    if step.startswith("wait:"):
        _, name, code = step.split(":")
        while not (folder / name).exists():
            time.sleep(0.02)
        return int(code)
    print(f"serving {task} at {config['cluster'][job][index]}", flush=True)
    (folder / f"{job}_{index}.served").touch()
    time.sleep(600)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
