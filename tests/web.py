"""A real HTTP server on loopback that serves a folder, with ranges, tokens and planted faults."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Site:
    """What is served, and how badly; change the fields while it runs.

    Attributes:
      folder: its files are served.
      url: of the folder.
      token: where set, requests need `Authorization: Bearer {token}`; others are told 401.
      answers: (pattern of a path, statuses that the next requests for it get, then the file).
      made: (pattern of a path, what makes the body of (path with query)); None is 404.
      asked: every request: method, path with query, Range.
    """

    folder: Path
    url: str = ""
    token: str | None = None
    answers: list[tuple[str, list[int]]] = field(default_factory=list)
    made: list[tuple[str, Callable[[str], bytes | None]]] = field(default_factory=list)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def fails(self, pattern: str, *statuses: int) -> None:
        """Let the next requests for a path that matches get these statuses, one each."""
        self.answers.append((pattern, list(statuses)))

    def paths(self) -> list[str]:
        """Paths asked for, in order."""
        return [path for _, path, _ in self.asked]


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """Serve a folder until the block ends."""
    site = Site(folder)
    handler = type("Handler", (_Handler,), {"site": site})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body=True)

    def log_message(self, *args) -> None:
        """Keep quiet."""

    def _answer(self, *, body: bool) -> None:
        site = self.site
        site.asked.append((self.command, self.path, self.headers.get("Range")))
        if site.token and self.headers.get("Authorization") != f"Bearer {site.token}":
            return self._end(401)
        for pattern, statuses in site.answers:
            if statuses and re.search(pattern, self.path):
                return self._end(statuses.pop(0))
        data = self._content()
        if data is None:
            return self._end(404)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._end(200, data, body=body)
        first, last = wanted.groups()
        begin = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if begin >= len(data):
            return self._end(416)
        return self._end(206, data[begin:end], f"bytes {begin}-{end - 1}/{len(data)}", body=body)

    def _content(self) -> bytes | None:
        for pattern, make in self.site.made:
            if re.search(pattern, self.path):
                return make(self.path)
        file = self.site.folder / unquote(urlsplit(self.path).path).lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def _end(self, status: int, data: bytes = b"", part: str = "", *, body: bool = True) -> None:
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if body:
            self.wfile.write(data)
