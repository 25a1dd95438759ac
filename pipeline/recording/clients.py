"""Route the libraries that read sources through a gateway for the duration of a block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pipeline.sources import remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def routes(gateway: str) -> Callable[..., str]:
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
def through(gateway: str) -> Iterator[None]:
    """Send the HTTP requests of this process through a gateway until the block ends.

    Only the address that requests are sent to changes. Their contents stay as the libraries make
    them, signed for the original host, and the URLs in answers stay as well.

    Args:
      gateway: URL of the gateway.
    """
    import aiohttp
    import requests

    route = routes(gateway)
    with contextlib.ExitStack() as stack:
        asynchronous = _of_aiohttp(route, aiohttp.ClientSession._request)
        stack.enter_context(_replaced(aiohttp.ClientSession, "_request", asynchronous))
        adapter = requests.adapters.HTTPAdapter
        stack.enter_context(_replaced(adapter, "send", _of_requests(route, adapter.send)))
        stack.enter_context(_replaced(remote, "ROUTE", route))
        yield


def _of_aiohttp(route: Callable[..., str], original: Any) -> Any:
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


def _of_requests(route: Callable[..., str], original: Any) -> Any:
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
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute until the block ends."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
