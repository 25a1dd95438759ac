"""A server on loopback for the page of the viewer and for the maps that it shows.

It answers GET and HEAD, whole objects and one range of bytes, and only requests that name this
server: a page of somebody else cannot read the maps through it. Maps at an S3 or HTTP URL are
passed on, so that neither CORS nor keys in the browser are needed.
"""

from __future__ import annotations

import functools
import http.server
import re
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline import failures, files
from pipeline.errors import ConfigError, SoilweaveError, StoreError
from pipeline.viewer import built

if TYPE_CHECKING:
    from pipeline.viewer.shown import Served, Shown


Headers = dict[str, str] | None

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
DENIED = HTTPStatus.FORBIDDEN
KNOWN_SIZES = 4096  # of objects that never change
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Server:
    """The server, in a thread of its own.

    Attributes:
      url: Its URL, with a final slash.
    """

    def __init__(self, shown: Shown, port: int = 0) -> None:
        """Begin to listen.

        Args:
          shown: What is shown.
          port: The port; 0 for any that is free.

        Raises:
          ConfigError: If the port cannot be used.
        """
        self._shown = shown
        handler = type("Handler", (_Handler,), {"answers": _Answers(shown)})
        try:
            self._server = http.server.ThreadingHTTPServer((HOST, port), handler)
        except OSError as error:
            problem = f"cannot be listened on: {error.strerror}"
            raise ConfigError(f"--port {port}", problem, remedy="give another, or none") from error
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the server is closed by another thread, or the process is interrupted."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening, and remove what was made."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._shown.close()


class _Answers:
    """Finds objects, their sizes and parts of them."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._lasting_size = functools.lru_cache(KNOWN_SIZES)(_size_of)

    def find(self, key: str) -> Served | None:
        """Return what the server has under a key; None if nothing."""
        return self._shown.find(key)

    def size(self, found: Served) -> int:
        """Return its size in bytes."""
        if not found.url:
            return len(found.data)
        return self._lasting_size(found.url) if found.immutable else _size_of(found.url)

    def read(self, found: Served, part: range | None = None) -> bytes:
        """Return its content, or a range of its bytes."""
        if not found.url:
            return found.data if part is None else found.data[part.start : part.stop]
        return files.read_bytes(found.url, *((part.start, part.stop) if part else ()))


def _size_of(url: str) -> int:
    """Return the size of an object; one whose server does not say it is read for it."""
    return files.size_of(url) or len(files.read_bytes(url))


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of a connection."""

    answers: _Answers
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True
    timeout = 60  # seconds; the connection of a browser that is gone is closed

    def do_GET(self) -> None:
        """Answer GET."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer HEAD."""
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in NAMES:
            self._fail(DENIED, "this server is for the browser of this machine")
            return
        key = unquote(urlsplit(self.path).path).removeprefix("/") or built.PAGE
        try:
            self._answer_with(key)
        except FileNotFoundError:
            self._fail(HTTPStatus.NOT_FOUND, f"{key}: not found")
        except StoreError as error:
            self._fail(DENIED if _is_denied(error) else HTTPStatus.BAD_GATEWAY, str(error))
        except SoilweaveError as error:
            self._fail(HTTPStatus.BAD_GATEWAY, str(error))

    def _answer_with(self, key: str) -> None:
        page = built.built_files().get(key)
        if page is not None:
            self._send(HTTPStatus.OK, key, page, built.cache_control(key))
            return
        found = self.answers.find(key)
        if found is None:
            raise FileNotFoundError(key)
        keep = built.FOR_EVER if found.immutable else built.ASK_AGAIN
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or asked.groups() == ("", ""):  # servers may ignore what they do not know
            self._send(HTTPStatus.OK, key, self.answers.read(found), keep)
            return
        size = self.answers.size(found)
        part = _part(asked[1], asked[2], size)
        if not part:
            self._fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"{key} has {size} bytes",
                       {"Content-Range": f"bytes */{size}"})  # fmt: skip
        else:
            described = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}"}
            data = self.answers.read(found, part)
            self._send(HTTPStatus.PARTIAL_CONTENT, key, data, keep, described)

    def _fail(self, status: HTTPStatus, text: str, more: Headers = None) -> None:
        self._send(status, ".txt", f"{text}\n".encode(), "no-store", more)

    def _send(
        self, status: HTTPStatus, key: str, data: bytes, keep: str, more: Headers = None
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": built.media_type(key),
            "Content-Length": str(len(data)),
            "Cache-Control": keep,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in (headers | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _is_denied(error: StoreError) -> bool:
    """Return whether a store has answered 403, as buckets that cannot be listed do for absences."""
    links = failures.chain(error)
    return any(isinstance(e, PermissionError) or failures.http_status(e) == DENIED for e in links)


def _part(first: str, last: str, size: int) -> range:
    """Return the bytes from the first to the last, or the last ones; empty if there are none."""
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(size, int(last) + 1) if last else size)
