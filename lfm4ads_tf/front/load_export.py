"""An export, asked in this process."""

from __future__ import annotations

from pathlib import Path

from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.front.loaded_export import LoadedExport


def load_export(folder: Path | str, log: EncodedLog) -> LoadedExport:
    """Loads an export, as TensorFlow Serving would, to score raw rows.

    Args:
        folder: The version folder, such as `export_model` returns.
        log: The encoded log that it was made with: its side tables and the statistics and
            sequences at the end of training complete the rows.

    Returns:
        The export; `predict` takes raw rows (N of them) and gives task -> (N,) float32.

    Raises:
        UserError: It cannot be loaded, or is of other data.

    Example:
        >>> import tempfile
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> folder = tempfile.TemporaryDirectory()
        >>> version = lfm.export_model(lfm.FoundationModel(log.layout), log, folder.name)
        >>> served = lfm.load_export(version, log)
        >>> rows = log.samples(5)
        >>> served.predict(rows)["click"].shape
        (5,)
    """
    return LoadedExport(Path(folder), log)
