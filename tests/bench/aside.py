"""An action in a process of its own, run in turn with those of this process.

What a process is given at its start can be compared so: settings of the allocator, threads.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from pipeline.cluster import malloc

PATHS = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]


class Aside:
    """A process that waits, and does its action when called; its seconds are the result."""

    def __init__(self, action, log, keep, threads=None, **arguments):
        """Start it.

        `action` is "module:function" of what makes the action of `arguments`; `keep` says whether
        the allocator keeps memory as soilweave has it, or is as the system has it.
        """
        self.log = Path(log)
        environment = {k: v for k, v in os.environ.items() if k not in malloc.MALLOC_SETTINGS}
        environment |= malloc.MALLOC_SETTINGS if keep else {}
        environment["PYTHONPATH"] = os.pathsep.join([*PATHS, environment.get("PYTHONPATH", "")])
        environment["OMP_NUM_THREADS"] = str(threads or os.cpu_count())
        command = [sys.executable, "-m", "bench.aside", action, json.dumps(arguments)]
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def __call__(self):
        """Do it once."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _answer(self):
        for line in self.process.stdout:
            if line.startswith("took "):
                return line.split()[1]
        raise RuntimeError(f"a process of its own ended: {self.log.read_text()[-2000:]}")


def napping(seconds):
    """An action that takes so long: what tests call."""
    return lambda: time.sleep(seconds)


def main():
    """Make the action that is named, then do it once a line that is read."""
    import torch

    from bench.measure import in_turn

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    module, _, name = sys.argv[1].partition(":")
    action = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print("took 0", flush=True)
    for _ in sys.stdin:
        (seconds,) = in_turn({"action": action}, 1, warm=0)["action"]
        print(f"took {seconds}", flush=True)


if __name__ == "__main__":
    main()
