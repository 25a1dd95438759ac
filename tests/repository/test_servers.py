"""The servers of the tests are real ones: they refuse, they keep promises, they leave nothing."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import numpy as np
import psutil
import psycopg2
import pytest
import servers
import zarr
from botocore.exceptions import ClientError
from processes import running


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """S3, PostgreSQL and MLflow on both; afterwards no process and no port is left."""
    folder, before = tmp_path_factory.mktemp("servers"), servers.ours()
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(servers.seaweed(folder))
        try:
            database = stack.enter_context(servers.postgres(folder))
        except servers.Absent as error:
            pytest.skip(str(error))
        given = (folder, database, s3.url("mlflow"))
        tracking = stack.enter_context(servers.mlflow_server(*given, environment=s3.environment))
        assert len(servers.leftovers(before)) >= 3
        yield s3, database, tracking
    assert servers.leftovers(before) == []
    ports = [urlsplit(url).port for url in (s3.endpoint, database, tracking)]
    assert [port for port in ports if not servers.is_free(port)] == []


def test_conditional_puts_are_honoured(started):
    s3, *_ = started
    with contextlib.closing(s3.client()) as client:

        def put(body: bytes, **condition: str) -> str:
            return client.put_object(Bucket=s3.bucket, Key="lease", Body=body, **condition)["ETag"]

        first = put(b"one", IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            put(b"two", IfNoneMatch="*")
        second = put(b"three", IfMatch=first)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            put(b"four", IfMatch=first)
        assert second != first
        assert client.get_object(Bucket=s3.bucket, Key="lease")["Body"].read() == b"three"


def test_a_wrong_key_is_refused(started):
    s3, *_ = started
    refused = ((s3.key, "0" * 32, "SignatureDoesNotMatch"), ("other", s3.secret, "InvalidAccess"))
    for key, secret, reason in refused:
        other = replace(s3, key=key, secret=secret).client()
        with contextlib.closing(other), pytest.raises(ClientError, match=reason):
            other.list_objects_v2(Bucket=s3.bucket)


def test_sharded_zarr_is_read_as_written(started):
    s3, *_ = started
    options = {"key": s3.key, "secret": s3.secret, "endpoint_url": s3.endpoint}
    options["client_kwargs"] = {"region_name": "us-east-1"}
    store = {"store": s3.url("sharded.zarr"), "storage_options": options}
    values = np.random.default_rng(1).normal(size=(64, 96)).astype("f4")
    made = zarr.create_array(
        **store, shape=values.shape, dtype="f4", chunks=(8, 8), shards=(32, 32)
    )
    made[...] = values
    np.testing.assert_array_equal(
        zarr.open_array(**store, mode="r")[5:40:3, 7:90], values[5:40:3, 7:90]
    )
    assert len([key for key in s3.keys("sharded.zarr/") if "/c/" in key]) == 6


def test_postgres_answers_and_is_not_root(started):
    _, uri, _ = started
    with contextlib.closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute("select 1, pg_backend_pid(), current_setting('data_directory')")
        one, pid, data = cursor.fetchone()
        assert one == 1
        assert psutil.Process(pid).uids().real != 0
        assert Path(data).stat().st_uid != 0
    wrong = uri.replace(urlsplit(uri).password, "wrong")
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        psycopg2.connect(wrong)


def test_mlflow_keeps_a_run_in_postgres_and_its_artifact_on_s3(started):
    s3, database, tracking = started
    client = mlflow.MlflowClient(tracking)
    run = client.create_run("0").info.run_id
    client.log_metric(run, "rmse", 0.5)
    client.log_text(run, "hello", "note.txt")
    assert client.get_run(run).data.metrics == {"rmse": 0.5}
    assert [item.path for item in client.list_artifacts(run)] == ["note.txt"]
    assert [key for key in s3.keys("mlflow/") if key.endswith(f"{run}/artifacts/note.txt")]
    with contextlib.closing(psycopg2.connect(database)) as connection:
        cursor = connection.cursor()
        cursor.execute("select count(*) from metrics where run_uuid = %s", (run,))
        assert cursor.fetchone() == (1,)


def test_a_server_that_does_not_start_says_why(tmp_path):
    command = ["/bin/sh", "-c", "echo no such luck; exit 3"]
    said = pytest.raises(RuntimeError, match=r"ended with 3; the end of .*\nno such luck")
    with running(command, tmp_path / "log") as server, said:
        server.wait_for(lambda: False)
