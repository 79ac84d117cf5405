"""Measurements behind the claims in docs/results.md; nothing here is imported by the package."""

import lfm4ads_tf  # noqa: F401 - before TensorFlow: its Keras, its banner
