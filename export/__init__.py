"""Export of trained models as SavedModels that a stock TensorFlow Serving loads."""

import lfm4ads_tf  # noqa: F401 - before TensorFlow: its Keras, its banner
