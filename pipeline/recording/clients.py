"""The libraries that read sources, routed through a gateway for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pipeline.sources import remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def routes(gateway: str) -> Callable[..., str]:
    """What gives the URL on a gateway that stands for another one.

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
    """Send what this process reads over HTTP through a gateway until the block ends.

    The requests stay as their libraries made them (signed for the host that is meant), and so do
    the URLs that answers tell of: only where they are sent to changes.
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


def _of_aiohttp(route: Callable[..., str], inner: Any) -> Any:
    """`ClientSession._request` with a last middleware, which sees each request of a redirection."""
    from yarl import URL

    async def redirect(request: Any, send: Any) -> Any:
        request.url = URL(route(str(request.url)), encoded=True)
        request.proxy = None
        return await send(request)

    async def routed(self: Any, method: str, url: Any, **options: Any) -> Any:
        given = options.pop("middlewares", None)
        before = self._middlewares if given is None else given
        return await inner(self, method, url, middlewares=(*before, redirect), **options)

    return routed


def _of_requests(route: Callable[..., str], inner: Any) -> Any:
    """`HTTPAdapter.send`; redirections are judged by the URL that is meant."""

    def routed(self: Any, request: Any, **options: Any) -> Any:
        sent = request.copy()
        sent.url = route(request.url)
        response = inner(self, sent, **options | {"proxies": {}})
        response.url, response.request = request.url, request
        return response

    return routed


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
