"""Run a step of training again and again; on a GPU, as one CUDA graph."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


EAGER_CALLS = 2  # calls before the graph is recorded: libraries set themselves up in the first


class RecordedStep:
    """Calls a function without arguments, which reads and changes the same tensors in every call.

    On a GPU, the first calls run the function as it is, the next one records its kernels, and from
    then on they are replayed: no kernel waits for the host. What the function left in attributes
    when it was recorded is what each replay writes to.
    """

    def __init__(self, device: str) -> None:
        """Record nothing yet."""
        self._eager_calls = EAGER_CALLS if device == "cuda" else None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, function: Callable[[], None]) -> None:
        """Run the function, the same one in every call.

        It is not kept: its object may hold this one, and memory on the GPU would then stay until
        Python next looks for such circles.
        """
        if self._eager_calls is None:
            function()
        elif self._eager_calls > 0:
            self._eager_calls -= 1
            _run_aside(function)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph, stream=_stream()):
                    function()
            self._graph.replay()


@cache
def _stream() -> torch.cuda.Stream:
    """Return the stream on which steps run before they are recorded, and are recorded.

    All steps of a process share it: cuBLAS keeps a workspace of 33 MB or more for each stream that
    it has ever seen.
    """
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _run_aside(function: Callable[[], None]) -> None:
    stream, current = _stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        function()
    current.wait_stream(stream)
