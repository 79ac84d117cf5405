"""The user's data folder."""

from __future__ import annotations

import os
from pathlib import Path

from lfm4ads_tf.errors import UserError


def check_data_dir(data_dir: Path) -> Path:
    """Returns `data_dir`, checked to exist and to be readable.

    Raises:
        UserError: It does not exist or cannot be read.
    """
    if not data_dir.exists():
        raise UserError(
            f"The data folder '{data_dir}' does not exist.",
            received=f"--data-dir {data_dir}",
            fix="correct --data-dir, or leave it out to download the data.",
        )
    if not os.access(data_dir, os.R_OK):
        raise UserError(
            f"The data folder '{data_dir}' cannot be read.",
            received=f"--data-dir {data_dir}",
            fix="check its permissions.",
        )
    return data_dir
