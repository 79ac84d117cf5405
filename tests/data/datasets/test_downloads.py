"""Downloads against a server on the loopback interface, and pip against a local wheel."""

from __future__ import annotations

import hashlib
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lfm4ads_tf.data.downloads import fetch, file_digest, pip_download
from lfm4ads_tf.errors import UserError

CONTENT = bytes(range(256)) * 20_000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/stalled":
            self.wfile.write(CONTENT[:100])
            self.wfile.flush()
            threading.Event().wait(2)
        else:
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/short" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.requests = 0
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def check_fix(error: pytest.ExceptionInfo[UserError], folder: Path) -> None:
    text = str(error.value)
    assert "--data-dir" in text and "--spec synthetic" in text
    assert not list(folder.iterdir()), "nothing may be left behind"


def test_fetch_writes_checks_and_reuses(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "data.bin"
    for _ in range(2):
        assert (
            fetch(f"{server}/ok", target, md5=MD5, sha256=SHA256, advice="", quiet=True) == target
        )
    assert target.read_bytes() == CONTENT
    assert file_digest(target, "md5") == MD5
    assert Handler.requests == 1
    assert list(target.parent.iterdir()) == [target]
    assert capsys.readouterr() == ("", "")
    target.write_bytes(b"damaged")
    fetch(f"{server}/ok", target, sha256=SHA256, advice="", quiet=True)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("gone", "HTTP status 404"),
        ("short", "of 5120000 bytes|IncompleteRead"),
        ("stalled", "timed out"),
    ],
)
def test_fetch_failures(server: str, tmp_path: Path, page: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        fetch(f"{server}/{page}", tmp_path / "f", advice="ask for it;", quiet=True, timeout=0.5)
    assert "Fix: ask for it;" in str(error.value)
    check_fix(error, tmp_path)


def test_fetch_time_limit(server: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finished after 0 s") as error:
        fetch(f"{server}/ok", tmp_path / "f", advice="", quiet=True, limit=0.0)
    check_fix(error, tmp_path)


def test_fetch_wrong_digest(server: str, tmp_path: Path) -> None:
    for digests in ({"md5": "0" * 32}, {"md5": MD5, "sha256": "0" * 64}):
        with pytest.raises(UserError, match="does not have the published") as error:
            fetch(f"{server}/ok", tmp_path / "f", advice="", quiet=True, **digests)
        check_fix(error, tmp_path)


def test_fetch_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # Nothing listens on port 1 of the loopback interface.
    with pytest.raises(UserError, match="no connection") as error:
        fetch("http://127.0.0.1:1/f", tmp_path / "f", advice="", quiet=True)
    check_fix(error, tmp_path)


def test_fetch_into_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fetch("http://127.0.0.1:1/f", tmp_path / "file" / "f", advice="", quiet=True)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    path = tmp_path / "lfm4ads_fake_data-1.0-py3-none-any.whl"
    info = "lfm4ads_fake_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lfm4ads_fake_data/data.txt", "1")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: lfm4ads-fake-data\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_pip_download_checks_and_reuses(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = file_digest(wheel, "sha256")
    folder = tmp_path / "cache"
    found = pip_download(str(wheel), digest, folder, quiet=True)
    assert found == folder / wheel.name
    assert found.read_bytes() == wheel.read_bytes()
    assert list(folder.iterdir()) == [found]
    monkeypatch.setattr("subprocess.run", lambda *a, **k: pytest.fail("pip ran again"))
    assert pip_download(str(wheel), digest, folder, quiet=True) == found


def test_pip_download_wrong_digest(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(UserError, match="does not have the published sha256") as error:
        pip_download(str(wheel), "0" * 64, folder, quiet=True)
    check_fix(error, folder)


def test_pip_download_failure(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(UserError, match="Download of the package .* failed") as error:
        pip_download(str(tmp_path / "missing-1.0-py3-none-any.whl"), "0" * 64, folder, quiet=True)
    assert "ERROR" in str(error.value)
    check_fix(error, folder)


def test_pip_download_timeout(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(UserError, match="not finished after 0 s") as error:
        pip_download(str(wheel), "0" * 64, folder, quiet=True, timeout=0.01)
    check_fix(error, folder)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A source archive whose build says where it ran."""
    backend = f"""
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, options=None):
    Path({str(tmp_path / "ran")!r}).touch()
    found = Path(folder, "tiny_data-1.0.dist-info")
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-data\\nVersion: 1.0\\n")
    return found.name

def build_wheel(folder, options=None, metadata=None):
    raise RuntimeError("built")
"""
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    path = tmp_path / "tiny_data-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (("backend.py", backend), ("pyproject.toml", build)):
            (tmp_path / name).write_text(text)
            tar.add(tmp_path / name, f"tiny_data-1.0/{name}")
    return path


def test_pip_download_of_a_source_archive(archive: Path, tmp_path: Path) -> None:
    digest = file_digest(archive, "sha256")
    found = pip_download(str(archive), digest, tmp_path / "cache", source=True, quiet=True)
    assert found == tmp_path / "cache" / archive.name
    assert file_digest(found, "sha256") == digest
    assert list((tmp_path / "cache").iterdir()) == [found]
    assert (tmp_path / "ran").exists()


def test_nothing_of_a_wrong_source_archive_is_run(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(UserError, match="Download of the package .* failed") as error:
        pip_download(str(archive), "0" * 64, folder, source=True, quiet=True)
    assert "DO NOT MATCH THE HASHES" in str(error.value)
    check_fix(error, folder)
    assert not (tmp_path / "ran").exists()
