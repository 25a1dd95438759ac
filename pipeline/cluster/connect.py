"""Start a local Ray, or connect to a cluster, and say what is wrong if that fails.

Ray asks a head that does not answer, or refuses a token, for up to two minutes and then only says
that it failed to connect. Here the head is asked once before Ray connects (`check_head`), and what
Ray raises is put into one line with a remedy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


CONNECT_TIMEOUT_S = 5.0  # to open a connection to the head
ANSWER_TIMEOUT_S = 20.0  # for the head's answer
MIN_FREE_MB = 10  # Ray's logs and sockets alone need some
WORK_HERE = "or unset RAY_ADDRESS to work on this machine"
TOKEN_REMEDY = "set RAY_AUTH_MODE and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on the cluster"
# With these settings, certificates or another kind of token are needed to ask the head.
ONLY_RAY_CAN_ASK = ("RAY_USE_TLS", "RAY_ENABLE_K8S_TOKEN_AUTH")
# With "0", the default on Windows and macOS, Ray listens on the loopback interface alone.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def names_cluster() -> bool:
    """Return whether RAY_ADDRESS names a cluster."""
    return os.environ.get("RAY_ADDRESS", "local") != "local"


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Let a local Ray that starts within the block listen on the loopback interface alone.

    Ray must be imported within the block too, because it reads the setting then. Nothing is set if
    RAY_ADDRESS names a cluster.
    """
    if names_cluster() or LOOPBACK_ONLY in os.environ:
        yield
        return
    os.environ[LOOPBACK_ONLY] = "0"
    try:
        yield
    finally:
        del os.environ[LOOPBACK_ONLY]


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, or start a local Ray if it names none.

    Raises:
      ConfigError: If that fails; it says why.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if names_cluster():
            _connect_to(os.environ["RAY_ADDRESS"])
        else:
            _start_local()
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray replaces our handler by its own, and prints the stack of the process before it
            # calls either of them, unless the handler is set again.
            own = handler if callable(handler) else signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, own)


def _start_local() -> None:
    """Start a local Ray.

    Raises:
      ConfigError: If it does not start.
    """
    import ray

    if not os.environ.get("RAY_AUTH_TOKEN"):
        # Otherwise Ray writes a token to ~/.ray, where it would stay, and needs a writable HOME.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()
    # Ray ends a node that misses five checks of its health, and with it the run. The only node
    # misses them when the machine is busy or was suspended, so it may miss them for an hour.
    os.environ.setdefault("RAY_health_check_failure_threshold", "360")
    # Never join a cluster by chance: Ray would look for one if the address were left out.
    try:
        ray.init(address="local", include_dashboard=False, **_quiet())
    except Exception as error:  # Ray raises bare Exceptions too
        ray.shutdown()
        raise _explain_start(error) from error


def _connect_to(address: str) -> None:
    """Connect to a cluster.

    Raises:
      ConfigError: If there is none, or it does not accept this client.
    """
    import ray

    check_head(address)
    try:
        ray.init(address=address, **_quiet())
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()
        raise _explain_connection(address, error) from error


def _quiet() -> dict[str, Any]:
    """Return arguments of `ray.init` that keep Ray's messages out of our progress line."""
    return {"logging_level": logging.ERROR, "log_to_driver": False}


def check_head(address: str) -> None:
    """Check that a head of a Ray cluster answers at an address, and accepts us.

    What only Ray can find ("auto", `ray://`) is not checked, and with the settings of
    ONLY_RAY_CAN_ASK only that somebody listens.

    Raises:
      ConfigError: If not.
    """
    parts = _parse_address(address)
    if parts is None:
        return
    _check_port(address, parts)
    if any(os.environ.get(name, "0").lower() in ("1", "true") for name in ONLY_RAY_CAN_ASK):
        return
    answer = _ask_head(parts)
    if answer.refused:
        answer = _ask_with_token(address, parts)
    if answer.problem:
        remedy = f"give the port of `ray start --head`, by default 6379, {WORK_HERE}"
        problem = f"does not answer as the head of a Ray cluster ({answer.problem})"
        raise _error(address, problem, remedy)
    _check_version(address, answer.version)


def _parse_address(address: str) -> SplitResult | None:
    """Return the host and port of an address, or None if only Ray can find the cluster.

    Raises:
      ConfigError: If it is no address of a head.
    """
    if address == "auto" or address.startswith("ray://"):
        return None
    if not address.strip():
        remedy = "unset it to work on this machine, or set it to the head's address, HOST:6379"
        raise ConfigError("RAY_ADDRESS", "is empty", remedy=remedy)
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        valid = not parts.scheme and bool(parts.hostname and parts.port)
    except ValueError:  # the port is no number, or too large, or a bracket is missing
        valid = False
    if valid:
        return parts
    if address.startswith(("http://", "https://")):
        host = address.partition("://")[2].partition("/")[0].partition(":")[0] or "HOST"
        remedy = f"for a cluster set it to the head's address, {host}:6379, {WORK_HERE}; "
        remedy += "`soilweave submit --address` takes the dashboard's URL"
        raise _error(address, "is the URL of a dashboard, to which jobs are submitted", remedy)
    remedy = f"give the head's address, such as HOST:6379, {WORK_HERE}"
    raise _error(address, "expected HOST:PORT", remedy)


def _check_port(address: str, parts: SplitResult) -> None:
    """Check that somebody listens on a port.

    Raises:
      ConfigError: If not.
    """
    try:
        target = (str(parts.hostname), int(parts.port or 0))
        socket.create_connection(target, CONNECT_TIMEOUT_S).close()
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a part of it is too long
        remedy = f"correct the host, {WORK_HERE}"
        problem = f"host {parts.hostname} cannot be found: {error.args[-1]}"
        raise _error(address, problem, remedy) from error
    except ConnectionRefusedError as error:
        remedy = f"start a cluster with `ray start --head`, correct the address, {WORK_HERE}"
        raise _error(address, "nobody listens there: connection refused", remedy) from error
    except OSError as error:
        timed_out = f"no connection within {CONNECT_TIMEOUT_S:g} s"
        problem = timed_out if isinstance(error, TimeoutError) else str(error.strerror or error)
        remedy = f"check the address and the network, {WORK_HERE}"
        raise _error(address, problem, remedy) from error


@dataclass(frozen=True)
class Answer:
    """What a port answered to the question whether the head of a cluster is alive.

    Attributes:
      version: Ray's version on the cluster.
      problem: Why there is no version, or an empty string.
      refused: Whether a token is missing or wrong.
    """

    version: str = ""
    problem: str = ""
    refused: bool = False


def _ask_head(parts: SplitResult, token: str | None = None) -> Answer:
    """Ask a port whether it is the head of a cluster."""
    import grpc
    from ray.core.generated import gcs_service_pb2

    messages: Any = gcs_service_pb2  # generated, without types
    options = [("grpc.enable_http_proxy", 0)]  # as Ray's own clients do
    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(parts.netloc, options) as channel:
        is_alive = channel.unary_unary(
            "/ray.rpc.NodeInfoGcsService/CheckAlive",
            messages.CheckAliveRequest.SerializeToString,
            messages.CheckAliveReply.FromString,
        )
        try:
            question = messages.CheckAliveRequest()
            reply = is_alive(question, timeout=ANSWER_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return Answer(problem=error.details(), refused=True)
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Answer(problem=f"no answer within {ANSWER_TIMEOUT_S:g} s")
            details = str(error.details()).rpartition("last error: ")[2]
            return Answer(problem=f"{error.code().name}: {' '.join(details.split())[:200]}")
    return Answer(reply.ray_version)


def _ask_with_token(address: str, parts: SplitResult) -> Answer:
    """Ask a head that has refused to answer without a token.

    Raises:
      ConfigError: If there is no token here, or the head refuses it.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    origin, token = _own_token()
    if (mode or "").lower() != "token":
        # With an address, Ray sends no token unless RAY_AUTH_MODE is set.
        problem = f"the cluster wants a token, but RAY_AUTH_MODE is {mode or 'not set'} here"
        known = f"set RAY_AUTH_MODE=token; the token in {origin} is then sent"
        remedy = known if token else TOKEN_REMEDY
        raise _error(address, problem, remedy)
    if not token:
        problem = f"the cluster wants a token, but there is none in {origin}"
        raise _error(address, problem, "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's")
    answer = _ask_head(parts, token)
    if answer.refused:
        problem = f"the cluster refuses the token in {origin}"
        raise _error(address, problem, "set RAY_AUTH_TOKEN to the cluster's token")
    return answer


def _own_token() -> tuple[str, str]:
    """Return where Ray takes our token from, and the token; empty if there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return "RAY_AUTH_TOKEN", token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    origin = "the file of RAY_AUTH_TOKEN_PATH" if path else "~/.ray/auth_token"
    try:
        return origin, Path(path or origin).expanduser().read_text().strip()
    except (OSError, RuntimeError, ValueError):
        return origin, ""


def _check_version(address: str, version: str) -> None:
    """Check that the cluster runs our version of Ray.

    Raises:
      ConfigError: If it runs another.
    """
    import ray

    if version and version != ray.__version__:
        raise _version_error(address, ("Ray", version, ray.__version__))


def _version_error(address: str, *differences: tuple[str, str, str]) -> ConfigError:
    """Return the error for versions that differ: (what, the cluster's, ours)."""
    found = ", ".join(
        f"{what} {cluster} on the cluster and {own} here" for what, cluster, own in differences
    )
    wanted = " and ".join(f"{what} {cluster}" for what, cluster, _ in differences)
    remedy = f"use {wanted} here, or run it there with `soilweave submit`"
    return _error(address, found, remedy)


def _explain_connection(address: str, error: Exception) -> ConfigError:
    """Return what Ray's error about a cluster means."""
    text = str(error)
    versions = re.findall(r"^ *(Ray|Python): (\S+)$", text, re.MULTILINE)
    if "Version mismatch" in text and len(versions) == 4:
        pairs = zip(versions[:2], versions[2:], strict=True)
        differing = [(what, there, here) for (what, there), (_, here) in pairs if there != here]
        return _version_error(address, *differing)
    chain = [error, *_causes(error)]
    if any("InvalidAuthToken" in str(cause) for cause in chain):
        return _error(address, "the cluster wants a token, or another one than ours", TOKEN_REMEDY)
    lines = text.strip().splitlines() or [type(error).__name__]
    remedy = f"start a cluster with `ray start --head`, correct the address, {WORK_HERE}"
    return _error(address, lines[0][:300], remedy)


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


def _explain_start(error: Exception) -> ConfigError:
    """Return what the error of a local Ray that does not start means."""
    variable, folder = _temporary_folder()
    place = f"{variable} {folder}"
    if isinstance(error, OSError) and (found := re.search(r"exceed (\d+) bytes: (.+)", str(error))):
        excess = len(os.fsencode(found[2])) - int(found[1])
        problem = f"too long by {excess} characters for the names of Ray's sockets"
        return ConfigError(
            place, problem, remedy="set RAY_TMPDIR to a folder with a shorter name, such as /tmp"
        )
    if _free_mb(folder) < MIN_FREE_MB:
        problem = f"{_free_mb(folder):.0f} MB free, too little to start Ray"
        return ConfigError(place, problem, remedy="make room, or set RAY_TMPDIR to another folder")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, OSError) and error.filename:
        remedy = "set RAY_TMPDIR to a folder that can be written to"
        return ConfigError(place, f"{error.filename}: {error.strerror}", remedy=remedy)
    remedy = f"see the logs in {folder}/ray/session_latest/logs, and try again"
    return ConfigError("local Ray", f"did not start: {lines[0][:300]}", remedy=remedy)


def _temporary_folder() -> tuple[str, str]:
    """Return the folder in which Ray makes its own, and the variable that names it."""
    for variable in ("RAY_TMPDIR", "TMPDIR"):
        if folder := os.environ.get(variable):
            return variable, folder
    return "temporary folder", "/tmp"


def _free_mb(folder: str) -> float:
    """Return the free space of a folder in MB; infinite if it is unknown."""
    try:
        return shutil.disk_usage(folder).free / 2**20
    except OSError:
        return float("inf")


def _error(address: str, problem: str, remedy: str) -> ConfigError:
    """Return an error about the cluster of RAY_ADDRESS."""
    return ConfigError(f"RAY_ADDRESS {address}", problem, remedy=remedy)
