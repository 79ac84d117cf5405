"""Initial values: moments and ranges of PyTorch's defaults."""

from __future__ import annotations

import numpy as np
from scipy import stats

from lfm4ads_tf.experiments.torch_initial import embedding_values, linear_values


def test_embedding_is_standard_normal() -> None:
    values = embedding_values(np.random.default_rng(0), 2000, 10)
    assert values.shape == (2000, 10) and values.dtype == np.float32
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.01


def test_linear_is_uniform_within_one_over_root_of_inputs() -> None:
    kernel, bias = linear_values(np.random.default_rng(0), 360, 300)
    bound = 1 / np.sqrt(360)
    assert kernel.shape == (360, 300) and bias.shape == (300,)
    for values in (kernel.ravel(), bias):
        uniform = stats.uniform(-bound, 2 * bound)
        assert stats.kstest(values, uniform.cdf).pvalue > 0.01
        assert 0.98 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
