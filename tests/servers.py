"""Real servers for tests: S3 (SeaweedFS), PostgreSQL, MLflow; each stops with its block."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg2
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from processes import BIN, free_ports, is_free, leftovers, ours, running, temporary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["S3", "Absent", "is_free", "leftovers", "mlflow_server", "ours", "postgres", "seaweed"]


class Absent(RuntimeError):
    """A server's program is not installed; says how to install it."""


@dataclass(frozen=True)
class S3:
    """An S3 server with one bucket, and the only keys it lets in."""

    endpoint: str
    key: str
    secret: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """What S3 clients read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def url(self, *parts: str) -> str:
        """URL of something in the bucket."""
        return "/".join(("s3:/", self.bucket, *parts))

    def client(self) -> Any:
        """A client of boto3; the caller closes it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=10),
        )

    def keys(self, prefix: str = "") -> list[str]:
        """Keys of all objects below a prefix."""
        with contextlib.closing(self.client()) as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            )
            return [item["Key"] for page in pages for item in page.get("Contents", ())]


@contextlib.contextmanager
def seaweed(folder: Path, address: str = "127.0.0.1", bucket: str = "soilweave") -> Iterator[S3]:
    """SeaweedFS: master, volume, filer and S3 in one process; log in `folder`/seaweed.log."""
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip(names, free_ports(len(names), address, twins=True), strict=True))
    s3 = S3(f"http://{address}:{ports['s3.port']}", *_made_up(), bucket)
    with temporary("sw-s3-") as data:
        command = [
            *(str(BIN / "weed"), "server", f"-dir={data}", f"-ip={address}", f"-ip.bind={address}"),
            *(f"-{name}={port}" for name, port in ports.items()),
            *("-filer", f"-filer.localSocket={data}/filer.sock"),
            *("-s3", f"-s3.localSocket={data}/s3.sock", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.volumeSizeLimitMB=256", "-master.telemetry=false"),
            *("-volume.max=50", "-volume.preStopSeconds=0"),
        ]
        # Nothing is kept, and its own way to stop takes a quarter of a minute.
        how = {"environment": s3.environment, "stop": signal.SIGKILL}
        with running(command, folder / "seaweed.log", **how) as server:
            server.wait_for(lambda: _bucket_made(s3))
            yield s3
    for port in ports.values():  # it puts these there whatever it is told
        for stale in Path("/tmp").glob(f"seaweedfs-*-{port + 10000}.sock"):
            stale.unlink()


def _bucket_made(s3: S3) -> bool:
    with contextlib.closing(s3.client()) as client:
        try:
            client.create_bucket(Bucket=s3.bucket)
            client.put_object(Bucket=s3.bucket, Key="probe", Body=b"1")  # a volume is there too
            client.delete_object(Bucket=s3.bucket, Key="probe")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "InternalError"):
                raise
            return False
        except BotoCoreError:
            return False
    return True


@contextlib.contextmanager
def postgres(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """PostgreSQL, its data gone afterwards, as an unprivileged user; gives its URI.

    Raises:
      Absent: PostgreSQL is not installed.
    """
    programs, user = _postgres_programs(), _unprivileged()
    (port,) = free_ports(1, address)
    name, password = _made_up()
    with temporary("sw-pg-") as home:
        data, given = home / "data", home / "password"
        given.touch(0o600)
        given.write_text(password)
        if user:
            os.chown(home, user["user"], user["group"])
            os.chown(given, user["user"], user["group"])
        options = ["--auth=scram-sha-256", f"--username={name}", f"--pwfile={given}", "--no-sync"]
        init = [programs / "initdb", f"--pgdata={data}", "--encoding=UTF8", *options]
        made = subprocess.run(init, capture_output=True, text=True, cwd=home, check=False, **user)
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        given.unlink()
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        command = [str(programs / "postgres"), "-D", str(data), "-h", address, "-p", str(port)]
        command += ["-k", str(home), "-c", "fsync=off"]
        uri = f"postgresql://{name}:{password}@{address}:{port}/postgres"
        # SIGINT is its fast shutdown; SIGTERM would wait for clients.
        stopped = {"stop": signal.SIGINT, "cwd": home, **user}
        with running(command, folder / "postgres.log", **stopped) as server:
            server.wait_for(lambda: _postgres_answers(uri))
            yield uri


def _postgres_programs() -> Path:
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise Absent("PostgreSQL is not installed: apt-get install postgresql")


def _unprivileged() -> dict[str, Any]:
    """Options of subprocess that drop root, which PostgreSQL refuses."""
    if os.getuid():
        return {}
    names = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _postgres_answers(uri: str) -> bool:
    try:
        psycopg2.connect(uri, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


@contextlib.contextmanager
def mlflow_server(
    folder: Path,
    backend_uri: str,
    artifacts: str,
    address: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """MLflow's tracking server, which hands artifacts on to `artifacts`; gives its URI.

    `environment` is how it reaches `artifacts` (S3.environment).
    """
    (port,) = free_ports(1, address)
    given = dict(environment or {})
    if "AWS_ENDPOINT_URL" in given:
        given["MLFLOW_S3_ENDPOINT_URL"] = given["AWS_ENDPOINT_URL"]
    # SQLAlchemy takes "postgresql" for psycopg 3; and not on the command line: has a password.
    backend_uri = backend_uri.replace("postgresql://", "postgresql+psycopg2://", 1)
    given["MLFLOW_BACKEND_STORE_URI"] = backend_uri
    given |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    given["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight processes for what we do not use
    command = [
        *(str(BIN / "mlflow"), "server", "--host", address, "--port", str(port), "--workers", "1"),
        *("--artifacts-destination", artifacts, "--serve-artifacts"),
        *("--allowed-hosts", f"{address}:{port}"),
    ]
    with running(command, folder / "mlflow.log", given, cwd=folder) as server:
        server.wait_for(lambda: _healthy(address, port))
        yield f"http://{address}:{port}"


def _healthy(address: str, port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection(address, port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _made_up() -> tuple[str, str]:
    return f"u{secrets.token_hex(8)}", secrets.token_hex(16)
