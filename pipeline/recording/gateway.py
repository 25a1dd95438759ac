"""A server on loopback that passes requests on and keeps the answers, or gives those kept.

`/{mode}/{scheme}/{host}/{path}` stands for a URL. In mode `plain` a redirection is given back to
who asks; in mode `follow` the gateway goes after it, for clients that would leave it otherwise.

GDAL holds Python's lock while it waits for an answer, so who reads must be another process.
"""

from __future__ import annotations

import contextlib
import http.server
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3

from pipeline.recording import exchanges
from pipeline.recording.exchanges import Answer, Exchanges

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES, MOST_REQUESTS = 40_000_000, 600  # of a recording
TIMEOUT = urllib3.Timeout(connect=30, read=120)
REDIRECTS = 10
# Of the connection between two neighbours, or made anew for the next.
HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
    *("transfer-encoding", "upgrade", "host", "content-length", "accept-encoding"),
}
NOT_KEPT, TOO_MUCH = 501, 413


class Gateway:
    """What has passed, and why some of it was refused.

    Attributes:
      url: of the gateway itself.
      kept: requests and answers.
      refused: what would have made the recording too large, in words; "" for nothing.
    """

    def __init__(self, replayed: Exchanges | None) -> None:
        """Answer from exchanges; None for passing on and keeping."""
        self.url, self.refused = "", ""
        self.kept = Exchanges() if replayed is None else replayed
        self.replays = replayed is not None
        self._pool = urllib3.PoolManager(maxsize=16)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """The answer to a request; None where the server does not answer."""
        _, mode, scheme, rest = path.split("/", 3)
        url = f"{scheme}://{rest}"
        asked = exchanges.request(method, url, headers, body)
        if self.replays:
            found = self.kept.find(asked)
            return found or Answer(NOT_KEPT, {}, b"not in the recording", 20)
        if len(self.kept.made) >= MOST_REQUESTS:
            self.refused = f"more than {MOST_REQUESTS} requests"
            return Answer(TOO_MUCH, {}, b"", 0)
        made = self._pass_on(method, url, headers, body, follow=mode == "follow")
        if made is not None and made.status != TOO_MUCH:
            self.kept.keep(asked, made)
        return made

    def _pass_on(
        self, method: str, url: str, headers: dict[str, str], body: bytes, *, follow: bool
    ) -> Answer | None:
        given = {name: value for name, value in headers.items() if name.lower() not in HOP}
        # Signatures are of the host that the client means; compressed text would hide secrets.
        given |= {"Accept-Encoding": "identity"}
        if not follow:
            given["Host"] = urlsplit(url).netloc.rpartition("@")[2]
        try:
            response = self._pool.request(
                method,
                url,
                body=body or None,
                headers=given,
                preload_content=False,
                decode_content=False,
                redirect=follow,
                retries=urllib3.Retry(REDIRECTS, connect=0, read=0, redirect=REDIRECTS)
                if follow
                else False,
                timeout=TIMEOUT,
            )
            return self._read(method, response)
        except urllib3.exceptions.HTTPError:
            return None

    def _read(self, method: str, response: Any) -> Answer:
        """What a server sends, as long as the recording stays small."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        length = int(headers.get("content-length", 0))
        left = MOST_BYTES - self.kept.size
        if method == "HEAD":
            response.release_conn()
            return Answer(response.status, headers, b"", length)
        if length <= left:
            data = response.read(left + 1)
            if len(data) <= left:
                response.release_conn()
                return Answer(response.status, headers, data, len(data))
        response.close()
        self.refused = f"more than {MOST_BYTES / 1e6:.0f} MB; an answer of {length / 1e6:.1f} MB"
        return Answer(TOO_MUCH, {}, b"", 0)


@contextlib.contextmanager
def serve(replayed: Exchanges | None = None) -> Iterator[Gateway]:
    """Run a gateway until the block ends; it replays what it is given, else it records."""
    gateway = Gateway(replayed)
    handler = type("Handler", (_Handler,), {"gateway": gateway})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    gateway: Gateway
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_OPTIONS = do_GET

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        made = self.gateway.answer(self.command, self.path, dict(self.headers.items()), body)
        if made is None:  # as the server did: no answer
            self.close_connection = True
            return
        self.send_response(made.status)
        for name, value in made.headers.items():
            if name not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(made.length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(made.body)
