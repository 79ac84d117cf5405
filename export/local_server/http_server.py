"""The HTTP side of REST: reads requests, keeps connections, writes answers."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lfm4ads_tf.export.local_server.rest_handler import RestHandler

_MAX_LINE = 1024


class HttpServer:
    """Serves a `RestHandler` on 127.0.0.1, one thread per connection (HTTP/1.1, kept alive).

    Args:
        handler: Answers the requests.
        port: TCP port; 0 for a free one.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, handler: RestHandler, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), _connection(handler))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="rest", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Takes no more connections and closes those that are open."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def close_connections(self) -> None:
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # closed by the client


def _connection(handler: RestHandler) -> type[BaseHTTPRequestHandler]:
    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # header and content leave together

        def _respond(self) -> None:
            try:
                body = self._body()
            except ValueError as error:  # where the content ends is unknown: so is what follows
                self.close_connection = True
                self.send_error(400, str(error))
                return
            answer = handler.answer(self.command, urlsplit(self.path).path, body)
            self.send_response(answer.code)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _respond

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                return self._chunks()
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal():
                raise ValueError("Content-Length is no number")
            return self.rfile.read(int(length))

        def _chunks(self) -> bytes:
            chunks = []
            while True:
                size = int(self.rfile.readline(_MAX_LINE).split(b";")[0], 16)
                if size < 0:
                    raise ValueError("a chunk has a negative size")
                if not size:
                    break
                chunks.append(self.rfile.read(size))
                self.rfile.readline(_MAX_LINE)
            while self.rfile.readline(_MAX_LINE).strip():
                pass  # trailers
            return b"".join(chunks)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the metrics count the requests."""

    return Connection
