"""Earthdata on loopback: CMR, an endpoint of S3 keys, and a host that sends readers elsewhere."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from miniatures_smap import Repository


@dataclass
class Earthdata:
    """What is served.

    Attributes:
      url: of the server.
      repository: answers at /search/granules.umm_json.
      keys: access key and secret that /s3credentials gives to who has the token.
      token: of a reader who is known; None lets everybody in.
      lasts_s: how long the keys last.
      elsewhere: URL that /away/... redirects to.
      statuses: statuses of the next answers, one each.
      asked: (path, Authorization) of every request.
    """

    url: str = ""
    repository: Repository | None = None
    keys: tuple[str, str] = ("key", "secret")
    token: str | None = None
    lasts_s: int = 3600
    elsewhere: str = ""
    statuses: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked.startswith(path) for asked, _ in self.asked)


@contextlib.contextmanager
def serve(**told) -> Iterator[Earthdata]:
    """Serve until the block ends."""
    site = Earthdata(**told)
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
    site: Earthdata
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site, authorization = self.site, self.headers.get("Authorization")
        site.asked.append((self.path, authorization))
        if site.statuses:
            self._end(site.statuses.pop(0), b'{"errors": ["no"]}')
        elif self.path.startswith("/search/granules.umm_json"):
            self._end(200, *site.repository.answer(self.path, self.headers.get("CMR-Search-After")))
        elif self.path == "/s3credentials":
            known = site.token is None or authorization == f"Bearer {site.token}"
            self._end(200 if known else 401, self._keys() if known else b"")
        elif self.path.startswith("/away/"):
            self._end(302, b"", {"Location": site.elsewhere + self.path.removeprefix("/away")})
        else:
            self._end(404)

    def log_message(self, *args) -> None:
        """Keep quiet."""

    def _keys(self) -> bytes:
        ends = datetime.now(UTC) + timedelta(seconds=self.site.lasts_s)
        key, secret = self.site.keys
        told = {"accessKeyId": key, "secretAccessKey": secret, "sessionToken": ""}
        return json.dumps(told | {"expiration": f"{ends:%Y-%m-%d %H:%M:%S}+00:00"}).encode()

    def _end(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
