"""Machines for a cluster on one machine: a network namespace each, joined by a bridge.

Where namespaces are not permitted, addresses of the loopback stand in for them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from processes import MARK, POLL_S, STOP_S

if TYPE_CHECKING:
    from collections.abc import Iterator


NODE = "SOILWEAVE_NODE"  # in the environment of every process of a node


def told(what: str, value: object) -> None:
    """A line of the table of what was measured, for a note."""
    sys.stdout.write(f"\n| {what} | {value} |")
    sys.stdout.flush()


@dataclass(frozen=True)
class Machine:
    """One node's machine: an address, and the namespace its processes run in, if there is one."""

    name: str
    address: str
    namespace: str | None

    def command(self, *command: str) -> list[str]:
        """The command as run on this machine."""
        return ["ip", "netns", "exec", self.namespace, *command] if self.namespace else [*command]

    @property
    def environment(self) -> dict[str, str]:
        """What tells this machine's processes from others, and gloo where the network is."""
        return {NODE: self.name, "GLOO_SOCKET_IFNAME": "eth0" if self.namespace else "lo"}

    def pids(self) -> list[int]:
        """Every process that runs on it."""
        if self.namespace:
            made = Path("/run/netns", self.namespace).exists()
            return [int(p) for p in _ip("netns", "pids", self.namespace).split()] if made else []
        wanted, found = MARK | {NODE: self.name}, []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if wanted.items() <= process.environ().items():
                    found.append(process.pid)
        return found

    def titles(self) -> list[str]:
        """What these processes call themselves."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(psutil.Process(pid).cmdline()).strip())
        return found

    def kill(self) -> int:
        """SIGKILL to all of them, again until none is left; returns how many there were."""
        killed: set[int] = set()
        end = time.monotonic() + STOP_S
        while pids := [pid for pid in self.pids() if _lives(pid)]:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: {pids} do not die")
            for pid in pids:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
            killed.update(pids)
            time.sleep(POLL_S)
        return len(killed)


@dataclass(frozen=True)
class Network:
    """The machines, and the address at which they reach servers of the machine they are on."""

    address: str
    machines: tuple[Machine, ...]
    bridge: str | None

    def left(self) -> list[str]:
        """Links and namespaces of this network that are still there."""
        if self.bridge is None:
            return []
        mark = self.bridge.removesuffix("b")
        text = _ip("-o", "link").splitlines() + _ip("netns", "list").splitlines()
        return [line for line in text if mark in line]


def permitted() -> str:
    """Why namespaces cannot be had here; empty where they can."""
    if os.getuid():
        return "not root"
    if shutil.which("ip") is None:
        return "no `ip` here: apt-get install iproute2"
    name = f"sw{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
        _ip("link", "add", name, "type", "bridge")
        _ip("link", "del", name)
    except RuntimeError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def network(names: list[str]) -> Iterator[Network]:
    """A network of machines of these names; afterwards all that ran there is killed."""
    refused = permitted()
    if refused:
        told("NO NETWORK NAMESPACES", f"{refused}: nodes are loopback addresses only")
        machines = [Machine(name, f"127.0.0.{i + 11}", None) for i, name in enumerate(names)]
        made = Network("127.0.0.1", tuple(machines), None)
    else:
        mark, subnet = f"sw{secrets.token_hex(3)}", _subnet()
        machines = [
            Machine(name, str(subnet[i + 11]), f"{mark}n{i}") for i, name in enumerate(names)
        ]
        made = Network(str(subnet[1]), tuple(machines), f"{mark}b")
    try:
        if made.bridge:
            _build(made, subnet.prefixlen)
        yield made
    finally:
        with contextlib.ExitStack() as stack:  # each is tried, whatever the others say
            if made.bridge:
                stack.callback(_delete, "link", made.bridge)
            for machine in machines:
                if machine.namespace:
                    stack.callback(_delete, "netns", machine.namespace)
                    # By itself it would go with its namespace, but some time later.
                    stack.callback(_delete, "link", _link(machine.namespace))
                stack.callback(machine.kill)


def _build(made: Network, prefix: int) -> None:
    bridge = str(made.bridge)
    _ip("link", "add", bridge, "type", "bridge")
    _ip("addr", "add", f"{made.address}/{prefix}", "dev", bridge)
    _ip("link", "set", bridge, "up")
    for machine in made.machines:
        space, link = str(machine.namespace), _link(str(machine.namespace))
        _ip("netns", "add", space)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", bridge, "up")
        _ip("-n", space, "addr", "add", f"{machine.address}/{prefix}", "dev", "eth0")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", "eth0", "up")


def _link(namespace: str) -> str:
    """The bridge's end of the cable to a namespace."""
    return f"{namespace}v"


def _delete(kind: str, name: str) -> None:
    """Remove a link or a namespace, if it came into being."""
    folder = {"link": "/sys/class/net", "netns": "/run/netns"}[kind]
    if Path(folder, name).exists():
        _ip(kind, "del", name)


def _subnet() -> ipaddress.IPv4Network:
    """A network of 254 addresses that no route of this machine leads to."""
    taken = []
    for line in _ip("-o", "-4", "route").splitlines():
        with contextlib.suppress(ValueError):  # "default", "unreachable"
            taken.append(ipaddress.ip_network(line.split()[0]))
    while True:
        tried = ipaddress.ip_network(
            f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(255)}.0/24"
        )
        if not any(tried.overlaps(other) for other in taken):
            return tried


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
