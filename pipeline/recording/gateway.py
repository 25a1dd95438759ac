"""A server on loopback that passes requests on and keeps the answers, or gives those kept.

`/{mode}/{scheme}/{host}/{path}` stands for a URL. In mode `plain` a redirection is given back to
who asks; in mode `follow` the gateway goes after it, for clients that would leave it otherwise.

GDAL holds Python's lock while it waits for an answer, so who reads must be another process.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import urllib3

from pipeline.recording import exchanges
from pipeline.recording.exchanges import Answer, Exchanges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.recording.exchanges import Request

MOST_BYTES, MOST_REQUESTS = 40_000_000, 600  # of a recording
TIMEOUT = urllib3.Timeout(connect=30, read=120)
REDIRECTS = 10
# Of the connection between two neighbours, or made anew for the next.
HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
    *("transfer-encoding", "upgrade", "host", "content-length", "accept-encoding"),
}
NOT_KEPT, TOO_MUCH = 501, 413
SETTLE_S = 10.0
# Bytes on their way. Libraries ask for whole files to see that they are there, and read nothing:
# what is sent before they hang up must stay little.
PART, BUFFER = 65536, 65536


class Passing(NamedTuple):
    """An answer on its way: `parts` of its body, and what is told which of it was sent."""

    status: int
    headers: dict[str, str]
    length: int
    parts: Iterator[bytes]
    sent: Callable[[bytes], None]


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
        self._requests, self._bytes, self._lock = 0, 0, threading.Lock()
        self._at_work, self._idle = 0, threading.Condition()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count a request as under way until the block ends."""
        with self._idle:
            self._at_work += 1
        try:
            yield
        finally:
            with self._idle:
                self._at_work -= 1
                self._idle.notify_all()

    def settle(self) -> None:
        """Wait until what is under way has been kept."""
        with self._idle:
            self._idle.wait_for(lambda: not self._at_work, SETTLE_S)

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Passing | None:
        """The answer to a request; None where the server does not answer."""
        _, mode, scheme, rest = path.split("/", 3)
        url = f"{scheme}://{rest}"
        asked = exchanges.request(method, url, headers, body)
        if self.replays:
            found = self.kept.find(asked) or Answer(NOT_KEPT, {}, b"", 0)
            return _ready(found.status, found.headers, found.length, found.body)
        with self._lock:
            self._requests += 1
            if self._requests > MOST_REQUESTS:
                self.refused = f"more than {MOST_REQUESTS} requests"
        if self.refused:
            return _ready(TOO_MUCH, {}, 0, b"")
        try:
            response = self._asked(method, url, headers, body, follow=mode == "follow")
            return self._passing(asked, response)
        except urllib3.exceptions.HTTPError:
            return None

    def _asked(
        self, method: str, url: str, headers: dict[str, str], body: bytes, *, follow: bool
    ) -> Any:
        given = {name: value for name, value in headers.items() if name.lower() not in HOP}
        # Signatures are of the host that the client means; compressed text would hide secrets.
        given |= {"Accept-Encoding": "identity"}
        if not follow:
            given["Host"] = urlsplit(url).netloc.rpartition("@")[2]
        after = urllib3.Retry(REDIRECTS, connect=0, read=0, redirect=REDIRECTS)
        return self._pool.request(
            method,
            url,
            body=body or None,
            headers=given,
            preload_content=False,
            decode_content=False,
            redirect=follow,
            retries=after if follow else False,
            timeout=TIMEOUT,
        )

    def _passing(self, asked: Request, response: Any) -> Passing:
        """What a server sends, kept as far as who asked wants it."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        parts = self._parts(response)
        length = headers.get("content-length")
        if length is None and asked.method != "HEAD":
            body = b"".join(parts)
            parts, length = iter((body,)), str(len(body))

        def sent(body: bytes) -> None:
            if not self.refused:
                self.kept.keep(asked, Answer(response.status, headers, body, int(length or 0)))

        return Passing(response.status, headers, int(length or 0), parts, sent)

    def _parts(self, response: Any) -> Iterator[bytes]:
        """The body in parts, as long as the recording stays small."""
        try:
            while part := response.read(PART):
                with self._lock:
                    self._bytes += len(part)
                    if self._bytes > MOST_BYTES:
                        self.refused = f"more than {MOST_BYTES / 1e6:.0f} MB"
                        return
                yield part
            response.release_conn()
        except urllib3.exceptions.HTTPError:
            return  # who asked sees that it ends too early
        finally:
            response.close()


def _ready(status: int, headers: dict[str, str], length: int, body: bytes) -> Passing:
    return Passing(status, headers, length, iter((body,)), lambda _: None)


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
        gateway.settle()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    gateway: Gateway
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        super().setup()

    def do_GET(self) -> None:
        with self.gateway.working():
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
        sent = bytearray()
        try:
            self._head(made)
            for part in made.parts if self.command != "HEAD" else ():
                self.wfile.write(part)
                sent += part
        except OSError:
            self.close_connection = True  # who asked has gone: it wanted no more than the head
        made.sent(bytes(sent))
        self.close_connection |= self.command != "HEAD" and len(sent) < made.length

    def _head(self, made: Passing) -> None:
        self.send_response(made.status)
        for name, value in made.headers.items():
            if name not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(made.length))
        self.end_headers()
