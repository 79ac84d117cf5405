"""The kit that serves a folder of exports with the official TensorFlow Serving image.

`lfm4ads-serving-kit EXPORTS_DIR --to DIR` writes it. Files that are the same for everybody
lie here; `models.config`, `.env` and the ConfigMap are made from the exports.
"""
