"""`lfm4ads-local-server`: a server for development and tests, not for production."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.quiet import native_stderr_hidden


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C or SIGTERM.

    Returns:
        0 after it was asked to end, 2 for wrong arguments.
    """
    options = vars(_parser().parse_args(arguments))
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    with native_stderr_hidden():  # takes seconds: only once the flags are right
        import tensorflow as tf

        from lfm4ads_tf.export.local_server.server import LocalServer

    tf.get_logger().setLevel("ERROR")  # the session loader is deprecated, and what the server uses
    try:
        server = LocalServer(**options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with server:
        print(
            f"Serving gRPC at {server.grpc_address} and REST at {server.rest_address}", flush=True
        )
        end.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lfm4ads-local-server", description=__doc__)
    parser.add_argument("--exports", type=Path, help="folder of models with version folders")
    parser.add_argument("--model_config_file", type=Path, help="ModelServerConfig, text proto")
    parser.add_argument("--model_name", help="name of a single model")
    parser.add_argument("--model_base_path", type=Path, help="its folder of versions")
    parser.add_argument("--port", type=_port, default=8500, help="gRPC; 0: any free one")
    parser.add_argument("--rest_api_port", type=_port, default=8501, help="REST; 0: any free one")
    parser.add_argument(
        "--file_system_poll_wait_seconds", type=_seconds, default=1.0, help="0: look once"
    )
    parser.add_argument(
        "--model_config_file_poll_wait_seconds", type=_seconds, default=0.0, help="0: read once"
    )
    parser.add_argument(
        "--allow_version_labels_for_unavailable_models",
        type=_flag,
        nargs="?",
        const=True,
        default=False,
        help="needed for labels in the first config",
    )
    parser.add_argument("--monitoring_config_file", type=Path, help="MonitoringConfig, text proto")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port")
    return port


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text.lower() == "true"


if __name__ == "__main__":
    sys.exit(main())
