"""The raw tables of a data set that the package knows."""

from __future__ import annotations

from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.pipeline.prepare import source_folder


def fetch(spec: FeatureSpec, data_dir: Path | str | None = None) -> Path:
    """Fetches or generates the raw tables of a spec's data set, once.

    They are kept in the folder that `LFM4ADS_CACHE` names, or the user's cache folder.

    Args:
        spec: A spec that names a `dataset`, as those do that come with the package.
        data_dir: The official files or archive, where there is no network.

    Returns:
        The folder that holds the files that the spec's `log` and `tables` name.

    Raises:
        UserError: The spec names files of the user's own, or the network failed.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> files = lfm.fetch(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> sorted(path.name for path in files.glob("*.parquet"))
        ['ads.parquet', 'log.parquet', 'users.parquet']
    """
    if spec.dataset is None:
        raise UserError(
            f"The spec '{spec.name}' names files of your own.",
            fix="read them as you like, and give them to lfm4ads_tf.encode",
        )
    return source_folder(spec, None if data_dir is None else Path(data_dir))
