"""What a recording must not hold: secrets in URLs, bodies and headers, in any of their forms."""

from __future__ import annotations

import json
import time

import fsspec
import pytest
import web

from pipeline.doctor.recording import exchanges, gateway
from pipeline.doctor.recording.exchanges import Answer, Exchanges


@pytest.fixture(autouse=True)
def reader(monkeypatch, tmp_path):
    """A reader with a token, a name and entries of ~/.netrc."""
    path = tmp_path / "netrc"
    path.write_text(
        "machine a.org login ada password planted-in-netrc\n"
        "machine b.org login bob.jones password short\n"
    )
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("PROVIDER_TOKEN", "planted-token")
    monkeypatch.setenv("EARTHDATA_USERNAME", "soil")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://h/a?X-Amz-Signature=1&X-Amz-Credential=2&x=3", "https://h/a?x=3"),
        ("https://h/a?sv=2020&st=1&se=2&sr=b&sp=r&sig=x%2By%3D", "https://h/a"),
        ("https://h/a?Expires=1&Signature=s&Key-Pair-Id=k&A-userid=ada", "https://h/a"),
        ("https://h/a?token=planted&list-type=2&prefix=b", "https://h/a?list-type=2&prefix=b"),
        ("https://h/a?continuation-token=next", "https://h/a?continuation-token=next"),
        ("https://h/a?pageToken=next&access_token=x", "https://h/a?pageToken=next"),
        ("https://me:pass@h/a", "https://h/a"),
        ("https://h/planted-token/a", "https://h/removed/a"),
        ("https://h/a?api-key=1&subscription-key=2&pwd=3&skip=4", "https://h/a?skip=4"),
        ("https://h/a?user=me&auth=x&access_key=y&author=z", "https://h/a?author=z"),
        (
            "https://h/a?elements=SMS%3A-2&beginDate=2020",
            "https://h/a?elements=SMS%3A-2&beginDate=2020",
        ),
    ],
)
def test_urls(url, kept):
    assert exchanges.remove_secrets(url) == kept
    assert exchanges.remove_secrets(kept) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdefgh.ij", "Authorization: Bearer removed"),
        ('"href": "https://h/a?sig=x\\u0026b=1"', '"href": "https://h/a?b=1"'),
        (
            "<Url>https://h/a?x=1&amp;Signature=s&amp;y=2</Url>",
            "<Url>https://h/a?x=1&amp;y=2</Url>",
        ),
        (
            "<Owner><ID>1a</ID><DisplayName>ada</DisplayName></Owner>",
            "<Owner><ID>removed</ID></Owner>",
        ),
        ('{"user_name": "x", "value": 3}', '{"user_name": "removed", "value": 3}'),
        ('{"token": "x", "nextPageToken": "2"}', '{"token": "removed", "nextPageToken": "2"}'),
        ("<SessionToken>x</SessionToken>", "<SessionToken>removed</SessionToken>"),
        ("key AKIAABCDEFGHIJKLMNOP", "key removed"),
        ("planted-in-netrc of bob.jones", "removed of removed"),
        ("soil_moisture of soil", "soil_moisture of removed"),
        ("shortwave, short", "shortwave, removed"),
    ],
)
def test_texts(text, kept):
    assert exchanges.remove_secrets(text) == kept


def test_keys_of_an_hour_never_end_when_they_are_replayed():
    told = {
        "accessKeyId": "ASIAX",
        "secretAccessKey": "s",
        "expiration": "2020-01-01 00:00:00+00:00",
    }
    found = json.loads(exchanges.remove_secrets(json.dumps(told)))
    assert found == {
        "accessKeyId": "removed",
        "secretAccessKey": "removed",
        "expiration": "2999-12-31 00:00:00+00:00",
    }


def test_a_body_that_is_no_text_keeps_its_length():
    body = b"\x89HDF\0planted-token\xff"
    made = exchanges.remove_secrets_from_body(body, "application/x-hdf5")
    assert made == b"\x89HDF\0*************\xff"


def test_headers_that_are_kept():
    given = {
        "Set-Cookie": "a=b",
        "ETag": '"x"',
        "Location": "https://h/a?sig=x",
        "X-Request-Id": "1",
    }
    assert exchanges.select_headers(given) == {"etag": '"x"', "location": "https://h/a"}


def test_an_entry_without_its_keys():
    options = {"key": "k", "secret": "s", "token": "anon", "anon": True}
    tree = {"login": "token", "storage_options": options, "urlpath": "https://h/%Y.nc?sig=x"}
    assert exchanges.remove_secrets_from_tree(tree) == {
        "login": "token",
        "storage_options": {"key": "removed", "secret": "removed", "token": "anon", "anon": True},
        "urlpath": "https://h/%Y.nc",
    }


def test_what_an_entry_sends_with_each_request_is_not_kept():
    tree = {
        "metadata": {"auth": "earthdata"},
        "login": "earthdata",
        "storage_options": {
            "headers": {"Ocp-Apim-Subscription-Key": "planted"},
            "client_kwargs": {"auth": ["ada", "planted"], "cookies": {"sid": "planted"}},
            "account_key": "planted",
        },
    }
    assert exchanges.remove_secrets_from_tree(tree) == {
        "metadata": {"auth": "earthdata"},
        "login": "earthdata",
        "storage_options": {
            "headers": {"Ocp-Apim-Subscription-Key": "removed"},
            "client_kwargs": {"auth": ["removed", "removed"], "cookies": {"sid": "removed"}},
            "account_key": "removed",
        },
    }


def answer(body: bytes, **headers: str) -> Answer:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(206 if headers else 200, told, body, len(body))


def test_answers_to_one_request_come_in_their_order_and_the_last_for_ever():
    kept = Exchanges()
    asked = exchanges.make_request("GET", "https://h/a?sig=1", {}, b"")
    for body in (b"one", b"two"):
        kept.keep(asked, answer(body))
    again = exchanges.make_request("GET", "https://h/a?sig=2", {}, b"")
    assert [kept.find(again).body for _ in range(3)] == [b"one", b"two", b"two"]


@pytest.mark.parametrize(
    ("wanted", "body", "told"),
    [
        ("bytes=102-104", b"cde", "bytes 102-104/200"),
        ("bytes=100-", None, ""),
        ("bytes=99-101", None, ""),
        ("bytes=105-120", None, ""),
    ],
)
def test_a_part_of_what_is_kept_is_cut_from_it(wanted, body, told):
    kept = Exchanges()
    first = exchanges.make_request("GET", "https://h/a", {"Range": "bytes=100-109"}, b"")
    kept.keep(first, answer(b"abcdefghij", content_range="bytes 100-109/200"))
    found = kept.find(exchanges.make_request("GET", "https://h/a", {"range": wanted}, b""))
    assert (found.body, found.headers["content-range"]) == (body, told) if body else found is None
    assert len(kept.unanswered) == (body is None)


def test_a_suffix_is_cut_from_the_whole():
    kept = Exchanges()
    kept.keep(exchanges.make_request("GET", "https://h/a", {}, b""), answer(b"abcdefghij"))
    found = kept.find(exchanges.make_request("GET", "https://h/a", {"range": "bytes=-3"}, b""))
    assert (found.status, found.body, found.headers) == (
        206,
        b"hij",
        {"content-range": "bytes 7-9/10"},
    )


def test_what_was_saved_is_loaded(tmp_path):
    kept = Exchanges()
    asked = exchanges.make_request("POST", "https://h/a", {"Range": "bytes=0-1"}, b"{}")
    kept.keep(asked, answer(b"\0\1", content_range="bytes 0-1/2", set_cookie="x"))
    kept.keep(exchanges.make_request("HEAD", "https://h/a", {}, b""), Answer(200, {}, b"", 77))
    kept.save(tmp_path)
    assert Exchanges.load(tmp_path).recorded == kept.recorded
    assert len(list((tmp_path / "bodies").iterdir())) == 1


def test_a_large_file_that_is_only_asked_after_is_not_read(tmp_path):
    """To see that a file is there, fsspec asks for all of it and hangs up."""
    (tmp_path / "large").write_bytes(b"ab" * 30_000_000)
    with web.serve(tmp_path) as site:
        with gateway.serve_gateway() as passed, gateway.route_through(passed.url):
            filesystem, path = fsspec.core.url_to_fs(f"{site.url}/large", skip_instance_cache=True)
            assert filesystem.exists(path)
            assert filesystem.cat_file(path, start=3, end=6) == b"bab"
            end = time.monotonic() + 30
            while len(passed.exchanges.recorded) < 2 and time.monotonic() < end:
                time.sleep(0.01)
        assert passed.refused == ""
        assert passed.exchanges.size < 5_000_000
        assert sorted(answer.length for _, answer in passed.exchanges.recorded) == [3, 60_000_000]
    with gateway.serve_gateway(passed.exchanges) as replayed, gateway.route_through(replayed.url):
        filesystem, path = fsspec.core.url_to_fs(f"{site.url}/large", skip_instance_cache=True)
        assert filesystem.exists(path)
        assert filesystem.cat_file(path, start=4, end=6) == b"ab"


def test_what_would_make_a_recording_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway, "MAX_RECORDED_BYTES", 1000)
    monkeypatch.setattr(gateway, "MAX_REQUESTS", 3)
    (tmp_path / "a").write_bytes(bytes(600))
    with (
        web.serve(tmp_path) as site,
        gateway.serve_gateway() as passed,
        gateway.route_through(passed.url),
    ):
        filesystem, path = fsspec.core.url_to_fs(f"{site.url}/a", skip_instance_cache=True)
        assert filesystem.cat_file(path) == bytes(600)
        with pytest.raises(Exception, match="not completed"):
            filesystem.cat_file(path)
        assert passed.refused == "more than 0 MB"
        with pytest.raises(Exception, match="413"):
            filesystem.cat_file(path)
    assert len(passed.exchanges.recorded) == 1
