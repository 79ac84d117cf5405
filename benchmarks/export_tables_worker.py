"""One export, loaded with TensorFlow alone: how long that takes, requests of 512 rows, scores.

python -m benchmarks.export_tables_worker load FOLDER        prints the seconds and ends
python -m benchmarks.export_tables_worker serve FOLDER       answers requests, see `Worker`
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import Any

import numpy as np
import tensorflow as tf

_BATCH = 4096


def load_seconds(folder: str) -> dict[str, float]:
    """Loads an export twice, as a server does (a session with its variables) and as Python does."""
    loader = tf.compat.v1.saved_model
    began = time.perf_counter()
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loader.load(session, [loader.tag_constants.SERVING], folder)
    session_s = time.perf_counter() - began
    began = time.perf_counter()
    tf.saved_model.load(folder)
    return {"session_s": session_s, "python_s": time.perf_counter() - began}


class _Served:
    """A loaded export and the rows that it is asked for."""

    def __init__(self, folder: str) -> None:
        self._model = tf.saved_model.load(folder)
        self._examples: tf.Tensor | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request: `examples` keeps rows, `time` asks for the first 512, `score` for all."""
        if request["do"] == "examples":
            records = [r.numpy() for r in tf.data.TFRecordDataset(request["file"])]
            self._examples = tf.constant(records)
            return {"rows": len(records)}
        if request["do"] == "time":
            began = time.perf_counter()
            for _ in range(request["calls"]):
                self._scores(0, 512)
            return {"ms": 1000 * (time.perf_counter() - began) / request["calls"]}
        assert self._examples is not None  # `examples` comes first
        parts = [self._scores(at, at + _BATCH) for at in range(0, len(self._examples), _BATCH)]
        scores = {task: np.concatenate([p[task] for p in parts]) for task in parts[0]}
        tasks = list(scores)
        np.save(request["file"], np.stack([scores[task] for task in tasks], axis=1))
        return {"tasks": tasks}

    def _scores(self, start: int, stop: int) -> dict[str, np.ndarray]:
        assert self._examples is not None  # `examples` comes first
        found = self._model.signatures["serving_default"](examples=self._examples[start:stop])
        return {task: values.numpy() for task, values in found.items()}


def main() -> None:
    """See the module's text."""
    mode, folder = sys.argv[1:3]
    if mode == "load":
        print(json.dumps(load_seconds(folder)), flush=True)
        return
    served = _Served(folder)
    for line in sys.stdin:
        try:
            answer = served.answer(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
