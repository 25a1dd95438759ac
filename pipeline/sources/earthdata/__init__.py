"""Earthdata Login: credentials that are asked of nobody, shown to nobody else, and refresh.

They come from EARTHDATA_TOKEN, from EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or from ~/.netrc.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import DataError
from pipeline.sources import http_errors
from pipeline.sources.earthdata import keys
from pipeline.sources.earthdata.credentials import check_host, login

REGION = "us-west-2"  # the buckets answer from within this region only
ENDPOINTS = {
    "nsidc-cumulus-prod-protected": "https://data.nsidc.earthdatacloud.nasa.gov/s3credentials",
    "gesdisc-cumulus-prod-protected": "https://data.gesdisc.earthdata.nasa.gov/s3credentials",
    "ornl-cumulus-prod-protected": "https://data.ornldaac.earthdata.nasa.gov/s3credentials",
    "lp-prod-protected": "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials",
    "prod-giovanni-cache": "https://api.giovanni.earthdata.nasa.gov/s3credentials",
}


def headers(url: str) -> dict[str, str]:
    """Headers of HTTPS requests for a file of Earthdata: the token of its reader.

    Raises:
      DataError: the URL is of no host of Earthdata; there are no credentials, or no valid ones.
    """
    check_host(url)
    return {"Authorization": f"Bearer {str(login().token['access_token']).strip()}"}


def s3_options(url: str) -> dict[str, Any]:
    """Options of s3fs for a bucket of Earthdata, with keys that are renewed before they end.

    Raises:
      DataError: the bucket is none of Earthdata's.
    """
    bucket = url.partition("://")[2].partition("/")[0]
    if bucket not in ENDPOINTS:
        found = (
            f"bucket {bucket} gives no keys to an Earthdata Login; known: {', '.join(ENDPOINTS)}"
        )
        remedy = "leave `login: earthdata` out of the entry where the bucket is your own"
        raise DataError(http_errors.shown(url), found, remedy=remedy)
    return {
        "session": keys.session(ENDPOINTS[bucket]),
        "client_kwargs": {"region_name": REGION},
    }
