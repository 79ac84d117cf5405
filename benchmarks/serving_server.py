"""A local server in a process of its own, and the addresses that a load test may send to."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from pathlib import Path
from threading import Timer
from types import TracebackType
from urllib.parse import urlsplit

from lfm4ads_tf.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS = 300.0  # large models load and replay their warm-up requests first
_STOP_SECONDS = 20.0
_READY = re.compile(r"Serving gRPC at (\S+) and REST at http://(\S+)")


class ServerProcess:
    """`python -m lfm4ads_tf.export.local_server`, ready for requests; use it in a `with` block.

    `grpc_address` and `rest_address` are `127.0.0.1:<port>`.

    Args:
        exports: Folder of models.
        log: File that gets what the process prints as errors.
        poll_seconds: How often it looks for new versions.

    Raises:
        UserError: It did not become ready.
    """

    def __init__(self, exports: Path, log: Path, *, poll_seconds: float = 1.0) -> None:
        command = [sys.executable, "-m", "lfm4ads_tf.export.local_server"]
        command += ["--exports", str(exports.resolve()), "--port", "0", "--rest_api_port", "0"]
        command += ["--file_system_poll_wait_seconds", str(poll_seconds)]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        timer = Timer(_START_SECONDS, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout else ""
        except BaseException:
            self.stop()
            raise
        finally:
            timer.cancel()
        ready = _READY.match(line)
        if ready is None:
            self.stop()
            raise UserError(
                "The local server did not start.",
                received=log.read_text("utf-8", "replace")[-2000:].strip() or line,
                fix=f"check the models in {exports}",
            )
        self.grpc_address, self.rest_address = ready.group(1), ready.group(2)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def loopback(url: str, scheme: str) -> str:
    """`host:port` of a server on this machine's loopback.

    Args:
        url: `<scheme>://host:port`; the host is in 127.0.0.0/8, `::1` or `localhost`.
        scheme: `grpc` or `http`.

    Raises:
        UserError: It is any other address.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != scheme or not host or not port or parts.path.strip("/"):
        raise UserError(
            "This is no address of a server.", received=url, fix=f"give {scheme}://127.0.0.1:<port>"
        )
    if not _is_loopback(host):
        raise UserError(
            "A load test goes to this machine's loopback only.",
            received=url,
            fix="name a server at 127.0.0.1, [::1] or localhost",
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name may be resolved to anything
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_loopback
    return address == ipaddress.IPv6Address("::1")
