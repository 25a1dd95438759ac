"""The machine: what it is, and what it could do at most."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from model.device import trains_in_bf16

PACKAGES = ("torch", "numpy", "ray", "zarr", "xarray", "neuralhydrology")
MEGABYTE = 1e6


def described():
    """Processor, cores, memory, load, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "bf16": trains_in_bf16("bf16", "cuda" if torch.cuda.is_available() else "cpu"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def in_words(machine):
    """One line of it."""
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    precision = "" if machine.get("bf16", True) else ", no LSTM in bf16 (fp32 instead)"
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:g} GB{gpu}"
        f"{precision}; load {machine['load_at_start']:g} at the start; {versions}"
    )


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((ln.split(":")[1].strip() for ln in lines if ln.startswith("model name")), "?")


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def multiplication(rows, inner, cols, dtype, device="cpu"):
    """An action: one product of two matrices, and the floating point operations of it."""
    a = torch.randn(rows, inner, dtype=dtype, device=device)
    b = torch.randn(inner, cols, dtype=dtype, device=device)
    out = torch.empty(rows, cols, dtype=dtype, device=device)
    return lambda: torch.mm(a, b, out=out), 2.0 * rows * inner * cols


def gemm(rows, inner, cols, dtype, seconds=0.2):
    """An action that gives the seconds of 1 GFLOP: products repeated for about so long."""
    action, flop = multiplication(rows, inner, cols, dtype)
    action()
    begun = time.perf_counter()
    action()
    times = max(1, round(seconds / (time.perf_counter() - begun)))

    def measured():
        begun = time.perf_counter()
        for _ in range(times):
            action()
        return (time.perf_counter() - begun) / (times * flop / 1e9)

    return measured


def copying(megabytes=256):
    """An action that gives the seconds of 1 MB copied from memory to memory."""
    source = np.ones(int(megabytes * MEGABYTE), np.uint8)
    target = np.zeros_like(source)

    def measured():
        begun = time.perf_counter()
        np.copyto(target, source)
        return (time.perf_counter() - begun) / megabytes

    return measured


def writing(folder: Path, megabytes=256):
    """An action that gives the seconds of 1 MB written to a new file, on the disk at its end."""
    data = np.random.default_rng(0).bytes(int(megabytes * MEGABYTE))

    def measured():
        path = folder / "written.bin"
        begun = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        seconds = time.perf_counter() - begun
        path.unlink()
        return seconds / megabytes

    return measured


def reading(folder: Path, megabytes=256):
    """An action that gives the seconds of 1 MB read from a file that is not in memory any more."""
    path = folder / "read.bin"
    with path.open("wb") as file:
        file.write(np.random.default_rng(0).bytes(int(megabytes * MEGABYTE)))
        file.flush()
        os.fsync(file.fileno())

    def measured():
        forget(path)
        begun = time.perf_counter()
        path.read_bytes()
        return (time.perf_counter() - begun) / megabytes

    return measured


def forget(path: Path):
    """Drop what the system holds of a file in memory, so that the next reading is from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
