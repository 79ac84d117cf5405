"""Modules that are run in a process of their own, and what they report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1500


def environment(*, kernels: bool = True) -> dict[str, str]:
    """The variables of such a process.

    Args:
        kernels: Whether compiled kernels may be used.
    """
    changes = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_FAIL_FAST": "use_caller"}
    return os.environ | changes | ({} if kernels else {"LFM4ADS_KERNELS": "0"})


def report_of_module(module: str, *arguments: str, kernels: bool = True) -> Any:
    """The JSON value on the last line of what a module prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment(kernels=kernels),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def report_and_leave(report: Callable[[], Any]) -> None:
    """Prints a report as JSON and ends the process, which threads of a cluster would keep."""
    code = 1
    try:
        print(json.dumps(report()), flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
