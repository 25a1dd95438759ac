"""Errors: one line, and no secret in it."""

import pickle

import pytest

from pipeline.errors import DataError, redact_secrets


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://a.b/c.nc?sig=abc%2F&se=2026: 403", "https://a.b/c.nc 403"),
        ("at 's3://b/k?X-Amz-Signature=1f' now", "at 's3://b/k' now"),
        ("http://me:pass@host/x and https://host/y", "http://host/x and https://host/y"),
        ("why? because", "why? because"),
    ],
)
def test_urls_lose_what_they_carry(said, shown):
    assert redact_secrets(said) == shown


def test_values_of_the_environment_are_not_shown(monkeypatch):
    monkeypatch.setenv("EARTHDATA_TOKEN", "eyJ0eXAi.planted")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("SOILWEAVE_PASSWORD", "short")
    error = DataError(
        "header eyJ0eXAi.planted", "key wJalrXUtnFEMI", "a short one", remedy="get another"
    )
    told = str(pickle.loads(pickle.dumps(error)))
    assert "planted" not in told
    assert "wJalr" not in told
    assert "header ***" in told
    assert "a short one" in told
    assert "get another" in told
