"""Route the libraries that read sources through a gateway for the duration of a block.

A proxy on loopback that forwards requests and keeps the answers, or replays kept answers.

`/{mode}/{scheme}/{host}/{path}` stands for a URL. In mode `plain` a redirection is returned to the
client; in mode `follow` the gateway follows it, for clients that would otherwise leave the gateway.

GDAL holds Python's global lock while it waits for an answer, so the client has to be in another
process.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import urllib3

from pipeline.doctor.recording import exchanges
from pipeline.doctor.recording.exchanges import Answer, Exchanges
from pipeline.sources.shared import access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.doctor.recording.exchanges import Request


def make_route(gateway: str) -> Callable[..., str]:
    """Return a function from a URL to the URL on a gateway that stands for it.

    Args:
      gateway: URL of the gateway itself.
    """

    def route(url: str, *, follow: bool = False) -> str:
        if url.startswith(gateway):
            return url
        scheme, _, rest = url.partition("://")
        return f"{gateway}/{'follow' if follow else 'plain'}/{scheme}/{rest}"

    return route


@contextlib.contextmanager
def route_through(gateway: str) -> Iterator[None]:
    """Send the HTTP requests of this process through a gateway until the block ends.

    Only the address that requests are sent to changes. Their contents stay as the libraries make
    them, signed for the original host, and the URLs in answers stay as well.

    Args:
      gateway: URL of the gateway.
    """
    import aiohttp
    import requests

    route = make_route(gateway)
    with contextlib.ExitStack() as stack:
        asynchronous = _routed_aiohttp(route, aiohttp.ClientSession._request)
        stack.enter_context(_replace_attribute(aiohttp.ClientSession, "_request", asynchronous))
        adapter = requests.adapters.HTTPAdapter
        stack.enter_context(
            _replace_attribute(adapter, "send", _routed_requests(route, adapter.send))
        )
        stack.enter_context(_replace_attribute(access, "ROUTE", route))
        yield


def _routed_aiohttp(route: Callable[..., str], original: Any) -> Any:
    """Return a routed `ClientSession._request`.

    A middleware, the last one, changes the URL: it is called for each request of a redirection.
    """
    from yarl import URL

    async def redirect(request: Any, send: Any) -> Any:
        request.url = URL(route(str(request.url)), encoded=True)
        request.proxy = None
        return await send(request)

    async def routed(self: Any, method: str, url: Any, **options: Any) -> Any:
        own = options.pop("middlewares", None)
        middlewares = self._middlewares if own is None else own
        return await original(self, method, url, middlewares=(*middlewares, redirect), **options)

    return routed


def _routed_requests(route: Callable[..., str], original: Any) -> Any:
    """Return a routed `HTTPAdapter.send`.

    The response has the original URL and request, since redirections are judged by them.
    """

    def routed(self: Any, request: Any, **options: Any) -> Any:
        routed_request = request.copy()
        routed_request.url = route(request.url)
        response = original(self, routed_request, **options | {"proxies": {}})
        response.url, response.request = request.url, request
        return response

    return routed


@contextlib.contextmanager
def _replace_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute until the block ends."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


MAX_RECORDED_BYTES, MAX_REQUESTS = 40_000_000, 600  # of a recording
TIMEOUT = urllib3.Timeout(connect=30, read=120)
MAX_REDIRECTIONS = 10

# Headers that concern a single connection, or that the gateway sets anew for the next one.
HOP_HEADERS = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
    *("transfer-encoding", "upgrade", "host", "content-length", "accept-encoding"),
}

NOT_RECORDED, TOO_MUCH = 501, 413  # HTTP statuses
SETTLE_S = 10.0

# Bytes read at once, and the size of the socket's buffer. Libraries request whole files to check
# that they exist and hang up without reading them, so little may be sent before that is noticed.
PART_BYTES, BUFFER_BYTES = 65536, 65536


class StreamedAnswer(NamedTuple):
    """An answer whose body is being streamed.

    Attributes:
      status: HTTP status.
      headers: headers of the answer.
      length: bytes of the whole body; for HEAD, of the object.
      parts: the body in parts.
      sent: to be called with the part of the body that the client has received.
    """

    status: int
    headers: dict[str, str]
    length: int
    parts: Iterator[bytes]
    sent: Callable[[bytes], None]


class Gateway:
    """Forwards requests and records the answers, or replays them.

    Attributes:
      url: URL of the gateway itself.
      exchanges: requests and answers.
      refused: why further requests are refused, if the recording would become too large; else "".
    """

    def __init__(self, replayed: Exchanges | None) -> None:
        """Replay exchanges; None to forward requests and record them."""
        self.url, self.refused = "", ""
        self.exchanges = Exchanges() if replayed is None else replayed
        self.replays = replayed is not None
        self._pool = urllib3.PoolManager(maxsize=16)
        self._requests, self._bytes, self._lock = 0, 0, threading.Lock()
        self._n_running, self._idle = 0, threading.Condition()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count a request as running until the block ends."""
        with self._idle:
            self._n_running += 1
        try:
            yield
        finally:
            with self._idle:
                self._n_running -= 1
                self._idle.notify_all()

    def settle(self) -> None:
        """Wait until the answers of running requests are recorded, for a limited time."""
        with self._idle:
            self._idle.wait_for(lambda: not self._n_running, SETTLE_S)

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> StreamedAnswer | None:
        """Return the answer to a request; None if the server does not answer."""
        _, mode, scheme, rest = path.split("/", 3)
        url = f"{scheme}://{rest}"
        request = exchanges.make_request(method, url, headers, body)
        if self.replays:
            answer = self.exchanges.find(request) or Answer(NOT_RECORDED, {}, b"", 0)
            return _complete_answer(answer.status, answer.headers, answer.length, answer.body)
        with self._lock:
            self._requests += 1
            if self._requests > MAX_REQUESTS:
                self.refused = f"more than {MAX_REQUESTS} requests"
        if self.refused:
            return _complete_answer(TOO_MUCH, {}, 0, b"")
        try:
            response = self._forward(method, url, headers, body, follow=mode == "follow")
            return self._stream(request, response)
        except urllib3.exceptions.HTTPError:
            return None

    def _forward(
        self, method: str, url: str, headers: dict[str, str], body: bytes, *, follow: bool
    ) -> Any:
        """Send a request to the server; return its response, whose body is not read yet."""
        forwarded = {
            name: value for name, value in headers.items() if name.lower() not in HOP_HEADERS
        }
        # Compressed text would hide secrets. Signatures are those of the original host.
        forwarded |= {"Accept-Encoding": "identity"}
        if not follow:
            forwarded["Host"] = urlsplit(url).netloc.rpartition("@")[2]
        redirections = urllib3.Retry(MAX_REDIRECTIONS, connect=0, read=0, redirect=MAX_REDIRECTIONS)
        return self._pool.request(
            method,
            url,
            body=body or None,
            headers=forwarded,
            preload_content=False,
            decode_content=False,
            redirect=follow,
            retries=redirections if follow else False,
            timeout=TIMEOUT,
        )

    def _stream(self, request: Request, response: Any) -> StreamedAnswer:
        """Return an answer that streams a response and records what the client receives of it."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        parts = self._parts(response)
        length = headers.get("content-length")
        if length is None and request.method != "HEAD":
            body = b"".join(parts)
            parts, length = iter((body,)), str(len(body))

        def sent(body: bytes) -> None:
            if not self.refused:
                answer = Answer(response.status, headers, body, int(length or 0))
                self.exchanges.keep(request, answer)

        return StreamedAnswer(response.status, headers, int(length or 0), parts, sent)

    def _parts(self, response: Any) -> Iterator[bytes]:
        """Yield the body in parts, until the recording is too large."""
        try:
            while part := response.read(PART_BYTES):
                with self._lock:
                    self._bytes += len(part)
                    if self._bytes > MAX_RECORDED_BYTES:
                        self.refused = f"more than {MAX_RECORDED_BYTES / 1e6:.0f} MB"
                        return
                yield part
            response.release_conn()
        except urllib3.exceptions.HTTPError:
            return  # the client sees that the body ends too early
        finally:
            response.close()


def _complete_answer(
    status: int, headers: dict[str, str], length: int, body: bytes
) -> StreamedAnswer:
    """Return an answer whose body is complete and that is not recorded."""
    return StreamedAnswer(status, headers, length, iter((body,)), lambda _: None)


@contextlib.contextmanager
def serve_gateway(replayed: Exchanges | None = None) -> Iterator[Gateway]:
    """Run a gateway until the block ends.

    Args:
      replayed: exchanges to replay; None to record.
    """
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
        """Limit what the system sends ahead of the reader, then prepare as usual."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        super().setup()

    def do_GET(self) -> None:
        """Answer a request."""
        with self.gateway.working():
            self._answer()

    do_HEAD = do_POST = do_OPTIONS = do_GET

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.gateway.answer(self.command, self.path, dict(self.headers.items()), body)
        if answer is None:
            self.close_connection = True  # the server did not answer, so the gateway does not
            return
        sent = bytearray()
        try:
            self._head(answer)
            for part in answer.parts if self.command != "HEAD" else ():
                self.wfile.write(part)
                sent += part
        except OSError:
            self.close_connection = True  # the client hung up: it needed only the headers
        answer.sent(bytes(sent))
        self.close_connection |= self.command != "HEAD" and len(sent) < answer.length

    def _head(self, answer: StreamedAnswer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name not in HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
