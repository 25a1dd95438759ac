"""Memory that is kept: large arrays that come and go cost no page faults."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster import malloc

ROOT = Path(__file__).resolve().parents[2]

FAULTS = """
import json, resource, sys, threading
import numpy as np
if sys.argv[1] == "kept":
    from pipeline.cluster import malloc
    malloc.keep_freed_memory()
def work():
    np.ones(2**23)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(2**23)  # 64 MB
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(how):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_arrays_that_come_and_go_in_a_thread_cost_no_page_faults():
    assert faults("kept") < faults("not") / 10


def test_what_the_environment_says_is_obeyed(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000000")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000000")
    malloc.keep_freed_memory()
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "1000000000"


def test_nodes_of_our_image_keep_memory_too():
    text = (ROOT / "infra" / "Dockerfile").read_text()
    assert all(f"{name}={value}" in text for name, value in malloc.MALLOC_SETTINGS.items())
