"""The loss curve read back from TensorBoard logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.analysis.loss_curve import loss_curve


def _write(folder: Path, values: dict[int, float], suffix: str = "") -> None:
    with tf.summary.create_file_writer(str(folder), filename_suffix=suffix).as_default():
        for step, value in values.items():
            tf.summary.scalar("train/loss", value, step=step)
            tf.summary.scalar("valid/auc", 0.5, step=step)


def test_short_curve_is_kept(tmp_path: Path) -> None:
    _write(tmp_path, {50: 0.75, 100: 0.5, 150: 0.25})
    assert loss_curve(tmp_path) == [(50.0, 0.75), (100.0, 0.5), (150.0, 0.25)]


def test_long_curve_is_averaged(tmp_path: Path) -> None:
    """More than a thousand records: TensorBoard's own sampling must not drop any."""
    values = np.random.default_rng(0).random(1203).astype(np.float32)
    _write(tmp_path, {k: float(v) for k, v in enumerate(values)})
    curve = np.array(loss_curve(tmp_path, points=7))
    expected = [values[c].mean() for c in np.array_split(np.arange(1203), 7)]
    np.testing.assert_allclose(curve[:, 1], expected, rtol=1e-6)
    assert (np.diff(curve[:, 0]) > 0).all()


def test_repeated_steps_after_a_resume_count_once(tmp_path: Path) -> None:
    _write(tmp_path, {50: 4.0, 100: 3.0, 150: 9.0}, ".0")
    _write(tmp_path, {150: 2.0, 200: 1.0}, ".1")
    assert loss_curve(tmp_path) == [(50.0, 4.0), (100.0, 3.0), (150.0, 2.0), (200.0, 1.0)]


@pytest.mark.parametrize("content", [None, b"", b"not an event file" * 9])
def test_missing_or_damaged_logs_give_no_curve(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "events.out.tfevents.1.host.1.0.v2").write_bytes(content)
    assert loss_curve(tmp_path) == []
