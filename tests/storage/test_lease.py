"""Two drivers on one workspace: one writes, the other waits or is told who holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import s3_proxy
from processes import running

from pipeline import files
from pipeline.errors import StoreError
from pipeline.progress import SilentProgress
from pipeline.storage import lease
from pipeline.storage.artefacts import Workspace

INPUTS = {"schema": 1}

HOLDER = """
import sys, time
from pipeline.storage import lease
lease.get_lease(sys.argv[1]).take(print)
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.servers)])
def url(request, tmp_path):
    """Where a lease lies."""
    if request.param == "local":
        return str(tmp_path / "snow" / "lease.json")
    s3 = request.getfixturevalue("s3")
    return s3.url(tmp_path.name, "lease.json")


@pytest.fixture
def other(url):
    """Another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def mine(url):
    held = lease.Lease(url)
    yield held
    held.release()


def wait_until(condition) -> None:
    """Poll until something holds."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def foreign(url: str) -> bytes:
    """A lease of a driver on another machine."""
    record = {"holder": "x", "host": "elsewhere", "pid": 1, "since": "today", "renewed": "0"}
    data = json.dumps(record).encode()
    while not files.compare_and_swap(
        url, data, files.read_bytes(url) if files.exists(url) else None
    ):
        time.sleep(0.01)  # a renewal came between
    return data


def test_a_second_driver_is_told_who_holds_it(url, other, mine):
    with pytest.raises(StoreError, match=f"held by process {other.pid} on .*, since"):
        mine.take(print)


def test_a_killed_driver_of_this_machine_is_replaced_at_once(url, other, mine):
    other.send_signal(signal.SIGKILL)
    other.wait()
    waited_for = []
    mine.take(waited_for.append)
    mine.check()
    assert waited_for == []
    assert json.loads(files.read_bytes(url))["pid"] == os.getpid()
    mine.release()
    assert not files.exists(url)


def test_a_silent_driver_elsewhere_is_waited_for_then_replaced(url, mine, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 2.0)
    foreign(url)
    told = []
    mine.take(told.append)
    assert mine.held
    assert [line for line in told if "process 1 on elsewhere" in line] == told != []


def test_a_driver_elsewhere_that_renews_is_alive(url, mine, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 20.0)
    found = foreign(url)
    renew = threading.Timer(
        1.5, lambda: files.compare_and_swap(url, found.replace(b'"0"', b'"1"'), found)
    )
    renew.start()
    with pytest.raises(StoreError, match="held by process 1 on elsewhere"):
        mine.take(lambda line: None)
    renew.join()


def test_of_many_who_try_one_gets_it(url):
    """Creation, and the takeover of a stale lease, from eight threads at a time."""
    for before in (None, foreign(url)):
        if before is None:
            files.remove(url)
        gate, won = threading.Barrier(8), []

        def attempt(i, before=before, gate=gate, won=won):
            gate.wait()
            if files.compare_and_swap(url, f"driver {i}".encode(), before):
                won.append(i)

        threads = [threading.Thread(target=attempt, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert files.read_bytes(url) == f"driver {won[0]}".encode()
        foreign(url)


def test_a_lost_lease_commits_nothing(tmp_path):
    workspace = Workspace(str(tmp_path / "snow"))
    artefact = workspace.artefact("cube")
    assert artefact.claim(INPUTS, False, SilentProgress())
    artefact.begin(INPUTS)
    foreign(workspace.url("lease.json"))
    with pytest.raises(StoreError, match="lost to process 1 on elsewhere"):
        artefact.commit(INPUTS, [])
    assert artefact.manifest() is None
    workspace.lease.release()
    assert b"elsewhere" in files.read_bytes(workspace.url("lease.json"))


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["default", "ignored"])
def sigint(request):
    """What SIGINT does: a script that starts a process with `&` lets it ignore the signal."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_whoever_loses_it_is_stopped(tmp_path, monkeypatch, sigint):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    held = lease.get_lease(str(tmp_path / "lease.json"))
    ended = []

    def work():
        with held.given_back():
            held.take(print)
            foreign(held.url)
            for _ in range(300):  # one long sleep can begin between the signal and its handling
                time.sleep(0.1)
            ended.append(True)

    with pytest.raises(StoreError, match="lost to process 1 on elsewhere"):
        work()
    assert not ended  # it did not come to its end first
    assert signal.getsignal(signal.SIGINT) == sigint


def test_a_complete_artefact_needs_no_lease(tmp_path):
    workspace = Workspace(str(tmp_path / "snow"))
    artefact = workspace.artefact("cube")
    artefact.claim(INPUTS, False, SilentProgress())
    artefact.begin(INPUTS)
    artefact.commit(INPUTS, [])
    workspace.lease.release()
    foreign(workspace.url("lease.json"))
    assert not artefact.claim(INPUTS, False, SilentProgress())


def test_neighbours_do_not_disturb_each_other(tmp_path):
    """A lease is of one experiment, not of the folder that holds several."""
    first, second = (Workspace(str(tmp_path / name)) for name in ("one", "two"))
    foreign(first.url("lease.json"))
    assert second.artefact("cube").claim(INPUTS, False, SilentProgress())
    second.lease.release()


# Who holds it: the same process, another with its id, or nobody who can be named


@pytest.fixture
def impatient_holders(monkeypatch):
    """A lease is soon stale."""
    monkeypatch.setattr(lease, "STALE_S", 0.4)
    monkeypatch.setattr(lease, "POLL_S", 0.1)


def rewritten(url: str, **changes) -> None:
    """Change fields of the record, as another process would; None removes one."""
    record = json.loads(files.read_bytes(url)) | changes
    record = {key: value for key, value in record.items() if value is not None}
    files.write_bytes(url, json.dumps(record).encode())


@pytest.fixture
def killed(url, other) -> str:
    """The lease of a process that was killed."""
    other.kill()
    other.wait()
    return url


def test_a_dead_drivers_id_that_lives_again_blocks_nobody(killed, mine):
    """Another process of this machine got the id of the one that was killed."""
    rewritten(killed, pid=os.getppid())
    told = []
    mine.take(told.append)
    assert (mine.held, told) == (True, [])


def test_a_driver_that_ended_and_was_not_waited_for_is_dead(url, other, mine):
    """As below a process 1 that does not collect its children."""
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    os.kill(other.pid, 0)  # its id is still taken
    told = []
    mine.take(told.append)
    assert (mine.held, told) == (True, [])


@pytest.mark.parametrize("url", ["local"], indirect=True)
@pytest.mark.parametrize(
    "changes",
    [
        {"boot": None, "pid_namespace": None, "started": None},  # of an earlier version
        {"boot": "another"},
        {"pid_namespace": 1},
        {"host": "elsewhere"},
        {"started": None},
        {"pid": "17"},
        {"pid": 10**30},
    ],
    ids=str,
)
def test_a_driver_that_cannot_be_looked_up_is_waited_for(killed, mine, impatient_holders, changes):
    rewritten(killed, **changes)
    told = []
    assert lease.Lease(killed).held_by_another()
    mine.take(told.append)
    assert mine.held
    assert len(told) == 1


def test_an_earlier_versions_driver_that_renews_is_alive(url, other, mine, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 20.0)
    rewritten(url, boot=None, pid_namespace=None, started=None)
    renewal = threading.Timer(1.5, rewritten, (url,), {"renewed": "later"})
    renewal.start()
    with pytest.raises(StoreError, match=f"held by process {other.pid} on "):
        mine.take(lambda line: None)
    renewal.join()


@pytest.mark.parametrize("url", ["local"], indirect=True)
@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b"null", b'"text"', b"", b"\xff\xfe\x00", b'{"holder": "x', b"[" * 100_000],
    ids=lambda content: repr(content[:12]),
)
def test_a_record_that_cannot_be_read_is_one_line_and_becomes_stale(
    url, mine, impatient_holders, content
):
    files.write_bytes(url, content)
    told = []
    assert lease.Lease(url).held_by_another()
    mine.take(told.append)
    assert mine.held
    assert told == ["waiting up to 0 s to see whether a process whose record is damaged is alive"]
    files.write_bytes(url, content)
    with pytest.raises(StoreError, match="lost to a process whose record is damaged, so"):
        mine.check()


def test_a_record_of_several_lines_is_described_in_one(url, mine, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 0.0)
    files.write_bytes(
        url, json.dumps({"host": "two\nlines", "pid": 1, "since": "x" * 999}).encode()
    )
    told = []
    mine.take(told.append)
    assert "process 1 on two lines" in told[0]
    assert "\n" not in told[0]
    assert len(told[0]) < 300


def test_a_folder_in_the_place_of_the_record_is_one_line(tmp_path):
    (tmp_path / "lease.json").mkdir()
    with pytest.raises(StoreError, match=r"lease\.json: cannot be read: Is a directory"):
        lease.Lease(str(tmp_path / "lease.json")).take(print)


# Containers: process ids of their own, a host name in common


CONTAINED = f"""
from pipeline.storage import lease
lease.RENEW_S, lease.STALE_S = 0.5, 2.0
{HOLDER}
"""


@pytest.fixture
def contained(url, tmp_path):
    """Starts a driver as process 1 of a container; its host is called as this one."""
    enter = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*enter, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"process namespaces cannot be made here: {tried.stderr.decode().strip()}")
    logs = iter(tmp_path / f"driver-{i}.log" for i in range(9))

    def start():
        command = [*enter, sys.executable, "-c", CONTAINED, url]
        return running(command, next(logs), stop=signal.SIGKILL)  # it waits for its child otherwise

    return start


def pid_in(url: str) -> int:
    return json.loads(files.read_bytes(url))["pid"]


def holds(driver) -> bool:
    return b"held\n" in driver.log.read_bytes()


@pytest.mark.parametrize("url", ["local"], indirect=True)
def test_a_driver_in_a_container_with_this_host_name_is_told_apart(url, contained, mine):
    with contained() as driver:
        driver.wait_for(lambda: holds(driver))
        assert pid_in(url) == 1  # an id that lives here too
        told = []
        with pytest.raises(StoreError, match="held by process 1 on"):
            mine.take(told.append)  # not before it has seen the lease renewed
        assert len(told) == 1
        rewritten(url, pid=2**22)  # an id that does not live here is no sign of death either
        assert mine.held_by_another()


@pytest.mark.parametrize("url", ["local"], indirect=True)
def test_a_container_that_is_restarted_is_not_blocked_by_itself(url, contained):
    with contained() as driver:
        driver.wait_for(lambda: holds(driver))
        (child,) = psutil.Process(driver.process.pid).children()
        child.kill()
        driver.process.wait()
    before = files.read_bytes(url)
    with contained() as again:
        again.wait_for(lambda: holds(again))
        assert files.read_bytes(url) != before
        assert pid_in(url) == json.loads(before)["pid"] == 1


# Answers of the store that are lost


@pytest.fixture
def losing(s3, monkeypatch):
    """The S3 server behind a proxy that can lose answers; clients give up soon."""
    with s3_proxy.before(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield proxy


@pytest.fixture
def lossy(s3, losing, tmp_path):
    """A lease on that server, taken."""
    held = lease.Lease(s3.url(tmp_path.name, "lease.json"))
    held.take(print)
    yield held
    losing.answer()
    held.release()


def renewed_in_vain(held, proxy) -> None:
    """Renew a lease; the record is written, its answer and what is read after it are lost."""
    before = files.read_bytes(held.url)
    proxy.lose()
    with pytest.raises(StoreError, match="cannot be written"):
        held.check()
    proxy.answer()
    assert ("PUT", 200) in proxy.lost
    assert files.read_bytes(held.url) != before


def test_a_renewal_whose_answer_is_lost_is_ones_own(lossy, losing):
    renewed_in_vain(lossy, losing)
    lossy.check()
    assert not lossy.lost
    renewed_in_vain(lossy, losing)
    lossy.release()
    assert not files.exists(lossy.url)


def test_the_thread_that_renews_survives_lost_answers(s3, losing, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    held = lease.Lease(s3.url(tmp_path.name, "lease.json"))
    with held.given_back():
        held.take(print)
        losing.lose()
        wait_until(lambda: [method for method, _ in losing.lost].count("PUT") >= 2)
        losing.answer()
        before = files.read_bytes(held.url)
        wait_until(lambda: files.read_bytes(held.url) != before)
        assert held.held
    assert not held.lost
    assert not files.exists(held.url)


def test_a_lease_whose_first_answer_is_lost_is_taken_or_given_back(s3, losing, tmp_path):
    held = lease.Lease(s3.url(tmp_path.name, "lease.json"))
    for again in (True, False):
        losing.lose()
        with pytest.raises(StoreError, match="cannot be written"):
            held.take(print)
        losing.answer()
        assert files.exists(held.url)
        assert not held.held
        assert not held.held_by_another()
        if again:
            held.take(print)
            assert held.held
        held.release()
        assert not files.exists(held.url)


def test_a_store_that_is_away_at_the_end_hides_no_error(lossy, losing):
    def work():
        with lossy.given_back():
            losing.lose()
            raise ValueError("the work itself")

    with pytest.raises(ValueError, match="the work itself"):
        work()
    assert not lossy.held


def test_a_write_that_failed_is_no_loss(s3, losing, tmp_path, monkeypatch):
    """The store refuses the write and answers the question after it: nobody else has written."""
    url = s3.url(tmp_path.name, "object")
    files.write_bytes(url, b"old")
    losing.forbidden = "PUT"
    with pytest.raises(StoreError, match="cannot be written"):
        files.compare_and_swap(url, b"new", b"old")
    assert files.read_bytes(url) == b"old"
