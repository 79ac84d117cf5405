"""Where something new is written: the user's folder, or a temporary one."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lfm4ads_tf.errors import UserError


@dataclass(frozen=True)
class NewFolder:
    """A folder that is empty or not there yet.

    Attributes:
        path: The folder.
        root: The temporary folder that holds it; None where it is the user's own.
    """

    path: Path
    root: Path | None = None

    def belongs_to(self, owner: object) -> None:
        """Removes a temporary folder with its owner."""
        if self.root is not None:
            weakref.finalize(owner, shutil.rmtree, self.root, ignore_errors=True)


@contextmanager
def new_folder(folder: Path | str | None, what: str, opener: str) -> Iterator[NewFolder]:
    """The folder to write to; a temporary one is removed if the block fails.

    Args:
        folder: The user's own; None for a temporary one.
        what: What goes there, for messages.
        opener: What opens such a folder that was written before.

    Raises:
        UserError: The folder holds something already.
    """
    if folder is not None:
        path = Path(folder)
        if path.exists() and any(path.iterdir()):
            raise UserError(
                f"The folder of {what} is not empty.",
                received=str(path),
                fix=f"give another one; {opener} opens what was written before",
            )
        yield NewFolder(path)
        return
    root = Path(tempfile.mkdtemp(prefix="lfm4ads_tf_"))
    try:
        yield NewFolder(root / "new", root)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
