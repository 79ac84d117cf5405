"""Export of trained models as SavedModels that a stock TensorFlow Serving loads."""

import lfm4ads_tf  # noqa: F401 - `python -m export.client` in a checkout: Keras 2, no banner
