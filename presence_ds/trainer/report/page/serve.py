"""The newest page for browsers on this machine."""

import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

HOST = "127.0.0.1"
SILENCE = 10.0  # seconds after which a connection is closed


class Server:
    """Serves the page that was published last, on localhost only, under an address that nobody else can guess.

    Other users of the machine reach its localhost too, and a page has the text of documents in it.
    """

    def __init__(self, port: int) -> None:
        """Listen on ``port``; on any that is free for 0.

        Raises:
            OSError: the port is taken or not allowed.
        """
        self._page = b""
        self._version = ""
        self._path = f"/{secrets.token_urlsafe(16)}/"
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SILENCE

            def do_GET(self) -> None:
                found = server._answer(self.path)
                self.send_response(200 if found else 404)
                body, kind = found or (b"There is nothing here: the address ends in a slash.\n", "text/plain")
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a browser asks for the version every few seconds."""

        self._server = _Quiet((HOST, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """For a browser."""
        return f"http://{HOST}:{self._server.server_address[1]}{self._path}"

    def publish(self, page: str, version: str) -> None:
        """Serve ``page``; pages that are open load themselves anew."""
        self._page, self._version = page.encode(), version

    def _answer(self, path: str) -> tuple[bytes, str] | None:
        if path == self._path:
            return self._page, "text/html"
        return (self._version.encode(), "text/plain") if path == f"{self._path}version" else None

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: browsers go away in the middle, and anybody on this machine may connect."""
