"""Earthdata Login: where credentials come from, to whom they go, and that they are renewed."""

from __future__ import annotations

import asyncio
from datetime import date

import earthdata_server
import pytest
import requests
from earthaccess import Auth
from miniatures_smap import Repository, item

from pipeline.errors import DataError
from pipeline.sources.shared import access, earthdata, http_errors
from pipeline.sources.smap import search

DATA = "https://data.nsidc.earthdatacloud.nasa.gov/SMAP/a.h5"
PERIOD = (date(2015, 12, 30), date(2016, 1, 2))
SPL3SMP = {"short_name": "SPL3SMP", "version": "009"}


@pytest.fixture(autouse=True)
def _nobody(monkeypatch, tmp_path):
    """A reader without credentials, and servers that need not be waited for."""
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"EARTHDATA_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(http_errors, "FIRST_WAIT_S", 0.01)


def answer(monkeypatch, status: int, text: str) -> list[tuple[str, str]]:
    """Let urs.earthdata.nasa.gov answer so; gives the names and passwords that it is told."""
    told = []

    def asked(auth: Auth) -> requests.Response:
        told.append((auth.username, auth.password))
        made = requests.Response()
        made.status_code, made._content = status, text.encode()
        return made

    monkeypatch.setattr(Auth, "_find_or_create_token", asked)
    return told


TOKEN = '{"access_token": "made", "token_type": "Bearer", "expiration_date": "1/2/2027"}'


def test_a_token_of_the_environment(monkeypatch):
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted\n")
    assert earthdata.authorization_headers(DATA) == {"Authorization": "Bearer planted"}
    monkeypatch.setenv("EARTHDATA_TOKEN", "renewed")
    assert earthdata.authorization_headers(DATA) == {"Authorization": "Bearer renewed"}


def test_a_name_and_a_password_are_told_once(monkeypatch):
    told = answer(monkeypatch, 200, TOKEN)
    monkeypatch.setenv("EARTHDATA_USERNAME", "ada")
    monkeypatch.setenv("EARTHDATA_PASSWORD", "planted")
    for _ in range(3):
        assert earthdata.authorization_headers(DATA) == {"Authorization": "Bearer made"}
    assert told == [("ada", "planted")]


def test_netrc(monkeypatch, tmp_path):
    told = answer(monkeypatch, 200, TOKEN)
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine urs.earthdata.nasa.gov login bob password planted\n")
    netrc.chmod(0o600)
    assert earthdata.authorization_headers(DATA) == {"Authorization": "Bearer made"}
    assert told == [("bob", "planted")]


def test_a_refused_password_is_not_told(monkeypatch):
    answer(monkeypatch, 401, "ada planted is wrong")
    monkeypatch.setenv("EARTHDATA_USERNAME", "ada")
    monkeypatch.setenv("EARTHDATA_PASSWORD", "planted")
    with pytest.raises(
        DataError, match=r"user name and password are refused; .*EARTHDATA_TOKEN"
    ) as told:
        earthdata.authorization_headers(DATA)
    assert "planted" not in str(told.value)


def test_nobody_is_asked(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(DataError, match=r"no credentials, .*urs.earthdata.nasa.gov"):
        earthdata.authorization_headers(DATA)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.h5",
        "https://earthdata.nasa.gov.example.org/a.h5",
        "https://notearthdata.nasa.gov/a.h5",
        "https://data.earthdata.nasa.gov@example.org/a.h5",
        "http://data.nsidc.earthdatacloud.nasa.gov/a.h5",
    ],
)
def test_a_token_goes_to_no_other_host(monkeypatch, url):
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted")
    with pytest.raises(
        DataError, match="is not an HTTPS host of Earthdata; your token is not sent"
    ):
        access.read_file(url, login="earthdata")


def test_a_token_does_not_follow_to_another_host(monkeypatch):
    """As the archive does, which sends readers on to a signed URL of S3."""
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted")
    with earthdata_server.serve() as other, earthdata_server.serve(elsewhere=other.url) as nasa:
        with pytest.raises(DataError, match="not found"):
            access.read_file(f"{nasa.url}/away/a.h5", login="earthdata")
        assert nasa.asked == [("/away/a.h5", "Bearer planted")]
        assert other.asked == [("/a.h5", None)]


def frozen(url: str):
    """The keys that S3 is asked with now."""

    async def now():
        credentials = await earthdata.s3_options(url)["session"].get_credentials()
        return await credentials.get_frozen_credentials()

    return asyncio.run(now())


def test_keys_are_renewed_before_they_end(monkeypatch):
    monkeypatch.setenv("EARTHDATA_TOKEN", "planted")
    with earthdata_server.serve(token="planted", lasts_s=3600) as nasa:
        monkeypatch.setitem(earthdata.KEY_ENDPOINTS, "bucket", f"{nasa.url}/s3credentials")
        assert frozen("s3://bucket/a.h5")[:2] == ("key", "secret")
        assert frozen("s3://bucket/b.h5")[:2] == ("key", "secret")
        assert nasa.times("/s3credentials") == 1
    with earthdata_server.serve(token="planted", lasts_s=300) as nasa:  # they end in 5 minutes
        monkeypatch.setitem(earthdata.KEY_ENDPOINTS, "bucket", f"{nasa.url}/s3credentials")
        assert frozen("s3://bucket/a.h5")[:2] == ("key", "secret")
        nasa.keys = ("later", "secret")
        nasa.statuses = [503]
        assert frozen("s3://bucket/a.h5")[:2] == ("later", "secret")


def test_keys_that_are_refused(monkeypatch):
    monkeypatch.setenv("EARTHDATA_TOKEN", "expired")
    with earthdata_server.serve(token="planted") as nasa:
        monkeypatch.setitem(earthdata.KEY_ENDPOINTS, "bucket", f"{nasa.url}/s3credentials")
        with pytest.raises(DataError, match=r"s3credentials: refused \(401\): .*expired"):
            frozen("s3://bucket/a.h5")
    with pytest.raises(
        DataError, match=r"bucket mine is not known to accept.*remove `login: earthdata`"
    ):
        access.fsspec_options("s3://mine/a.h5", {}, "earthdata")


def test_a_search_goes_through_years_and_pages():
    days = [f"20151231T{i // 60 % 24:02d}{i % 60:02d}{i // 1440:02d}" for i in range(2003)]
    names = [f"SMAP_L4_SM_gph_{day}_Vv8011_001.h5" for day in (*days, "20160101T013000")]
    items = [item(name, "https://a", "2024-01-01T00:00:00Z", 7) for name in names]
    with earthdata_server.serve(repository=Repository(items)) as nasa:
        found = search.search_cmr(SPL3SMP, PERIOD, (-125, 25, -67, 50), cmr=nasa.url)
        queries = nasa.repository.queries
    assert [one.name for one in found] == names
    assert found[0].url == f"https://a/{names[0]}"  # the file, of the links of its type
    assert found[0].size == 7
    assert [query["temporal[]"] for query in queries] == [
        "2015-12-30T00:00:00Z,2015-12-31T23:59:59Z",
        "2015-12-30T00:00:00Z,2015-12-31T23:59:59Z",
        "2016-01-01T00:00:00Z,2016-01-02T23:59:59Z",
    ]
    assert queries[0]["bounding_box"] == "-125.0,25.0,-67.0,50.0"


def test_no_password_of_netrc_goes_to_the_repository(monkeypatch, tmp_path):
    told = answer(monkeypatch, 200, TOKEN)
    netrc = tmp_path / ".netrc"
    netrc.write_text(
        "machine urs.earthdata.nasa.gov login a password b\ndefault login c password d\n"
    )
    netrc.chmod(0o600)
    with earthdata_server.serve(token="made", repository=Repository([])) as nasa:
        search.search_cmr(SPL3SMP, PERIOD, cmr=nasa.url)
        assert {authorization for _, authorization in nasa.asked} == {None}
        monkeypatch.setitem(earthdata.KEY_ENDPOINTS, "bucket", f"{nasa.url}/s3credentials")
        assert frozen("s3://bucket/a.h5")[:2] == ("key", "secret")  # by the token, not by c and d
    assert told == [("a", "b")]


def test_a_search_that_fails():
    with earthdata_server.serve(repository=Repository([])) as nasa:
        nasa.statuses = [503, 503]
        assert search.search_cmr(SPL3SMP, PERIOD, cmr=nasa.url) == []
        nasa.statuses = [400]
        with pytest.raises(DataError, match="answers 400"):
            search.search_cmr(SPL3SMP, PERIOD, cmr=nasa.url)
    with pytest.raises(DataError, match="does not answer"):
        search.search_cmr(SPL3SMP, PERIOD, cmr=nasa.url)
    granule = item("SMAP_L3_SM_P_20151230_R19240_001.h5", "https://a", "2024")
    granule["umm"]["RelatedUrls"] = []
    with (
        earthdata_server.serve(repository=Repository([granule])) as nasa,
        pytest.raises(DataError, match=r"20151230_R19240_001.h5 in CMR: has no link of type"),
    ):
        search.search_cmr(SPL3SMP, PERIOD, cmr=nasa.url, direct=True)
