"""The kit that serves a folder of exports with the official TensorFlow Serving image.

`python -m lfm4ads_tf.export.serving EXPORTS_DIR --to DIR` writes it. Files that are the same for
everybody lie here; `models.config`, `.env` and the ConfigMap are made from the exports.
"""
