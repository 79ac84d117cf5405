"""Export of trained models as SavedModels that a stock TensorFlow Serving loads."""
