"""How glibc's allocator treats large arrays: it keeps their memory instead of giving it back.

By default an array over 32 MB at most is a mapping of its own, zeroed page by page when touched and
unmapped when dropped. A training step makes and drops hundreds of megabytes, so that on virtual
machines 40 % of its time went into page faults (`make bench` shows it). Memory that was once used
is kept for the next step instead: a fifth more at the most, for the default recipe's step.

The variables do the same for processes that find them in their environment at their start: nodes of
our images and the workers of Ray. `keep` is for the process of the command line, which the user has
started without them; ranking new probes there took twice the processor time.
"""

from __future__ import annotations

import ctypes
import os

SETTINGS = {
    "MALLOC_ARENA_MAX": "1",  # other arenas, which threads have, map large arrays whatever is set
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}

MALLOPT = {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}


def keep() -> None:
    """Keep memory in this process and in those it starts; what the environment says is obeyed.

    Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, value in SETTINGS.items():
        chosen = os.environ.setdefault(name, value)
        if mallopt is not None:
            mallopt(MALLOPT[name], int(chosen))
