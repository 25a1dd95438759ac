"""Remove credentials, signatures, cookies and account names from what a recording keeps."""

from __future__ import annotations

import netrc
import os
import re
from typing import Any

from pipeline.errors import SECRET, SHORTEST_SECRET

REMOVED = "removed"
ACCOUNT = re.compile("USERNAME|USER_NAME|LOGIN|ACCOUNT")
SHORTEST_ACCOUNT = 4
PUBLIC = ("anonymous", "token", "root", "user")  # account names that identify nobody
# Headers of an answer that are kept. All others are removed, such as cookies and ids of users.
HEADERS = {
    *("accept-ranges", "content-encoding", "content-range", "content-type", "etag"),
    *("last-modified", "location", "link", "retry-after", "cmr-hits", "cmr-search-after"),
    *("x-amz-bucket-region", "x-goog-hash", "x-goog-generation", "x-goog-stored-content-length"),
    *("x-goog-stored-content-encoding", "x-ms-blob-type"),
}
# Parameters of a URL that sign it or identify the user. Tokens of the next page are neither.
_PARAMETER = re.compile(
    r"(?!continuation-token$|pagetoken$|next\w*token$)"
    r"(x-amz-.*|x-goog-.*|.*(token|secret|passw|passphrase|signature|credential|userid|username"
    r"|oauth|authorization|cookie|session|hmac).*|.*key|auth|jwt|sid|sig|se|st|sp|sv|sr|spr"
    r"|sk(oid|tid|t|e|s|v)|key-pair-id|awsaccesskeyid|policy|expires|app_?id|pwd|pass|user|login"
    r"|e-?mail)$",
    re.IGNORECASE,
)
_URL = re.compile(r"(https?://)([^\s\"'<>?@/]*@)?([^\s\"'<>?]+)(\?[^\s\"'<>]*)?")
_AND = re.compile(r"&amp;|&|\\u0026")
_SHAPES = (
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}|(?<=basic )[\w+/=-]{8,}"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),  # JSON web tokens
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
)
_FIELD = re.compile(
    r'("(?!next\w*token"|page_?token"|continuation_?token")'
    r"(?:\w*(?:token|secret|passw|signature|credential|api[_-]?key|access_?key|cookie|session_?id)"
    r'\w*|authorization|uid|user_?id|user_?name|email(?:_?address)?)"\s*:\s*")[^"]*"',
    re.IGNORECASE,
)
_ELEMENT = re.compile(
    r"(<(AccessKeyId|SecretAccessKey|SessionToken|\w*[Pp]assword)>)[^<]*(?=</)", re.IGNORECASE
)
_NAMED = re.compile(
    "^(user|username)$|key$|secret|token|passw|api[_-]?key|authorization|cookie"
    "|credential|connection_string|signature|session",
    re.IGNORECASE,
)
SENT = ("headers", "cookies", "auth")  # settings of an entry that a replay does not need
# Values of a setting `token` that name a way to log in, and are no secrets.
MODES = ("anon", "cloud", "google_default", "browser", "token")
_KEYS = re.compile(r'"(secretAccessKey|access_token)"')
_ENDS = re.compile(r'("expiration(?:_date)?"\s*:\s*")[^"]*"', re.IGNORECASE)
_OWNER = re.compile(r"<Owner>.*?</Owner>", re.DOTALL)
LATE = "2999-12-31 00:00:00+00:00"  # when keys in a recording expire: never


def known() -> list[re.Pattern[bytes]]:
    """Return patterns of the secrets and account names in this machine's environment and ~/.netrc.

    Names and short passwords match whole words only, since they may be parts of ordinary words.
    """
    secrets = {v for k, v in os.environ.items() if SECRET.search(k) and len(v) >= SHORTEST_SECRET}
    names = {v for k, v in os.environ.items() if k.startswith("EARTHDATA_") and ACCOUNT.search(k)}
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    for login, account, password in hosts.values():
        names |= {login or "", account or ""}
        is_long = password and len(password) >= SHORTEST_SECRET
        (secrets if is_long else names).add(password or "")
    patterns = [re.escape(text.strip()) for text in sorted(secrets, key=len, reverse=True)]
    patterns += [
        rf"(?<!\w){re.escape(name)}(?!\w)"
        for name in sorted(names - {*PUBLIC})
        if len(name) >= SHORTEST_ACCOUNT
    ]
    return [re.compile(pattern.encode()) for pattern in patterns if pattern]


def without(text: str) -> str:
    """Return a text without secrets; URLs in it keep the parameters that select the data."""
    content = text.encode()
    for secret in known():
        content = secret.sub(REMOVED.encode(), content)
    text = content.decode()
    text = _URL.sub(lambda match: f"{match[1]}{match[3]}{_query(match[4] or '')}", text)
    for shape in _SHAPES:
        text = shape.sub(REMOVED, text)
    if _KEYS.search(text):
        text = _ENDS.sub(rf'\g<1>{LATE}"', text)
    text = _FIELD.sub(rf'\g<1>{REMOVED}"', text)
    text = _ELEMENT.sub(rf"\g<1>{REMOVED}", text)
    return _OWNER.sub(f"<Owner><ID>{REMOVED}</ID></Owner>", text)


def without_in_body(body: bytes, content_type: str) -> bytes:
    """Return the body of an answer without secrets; binary bodies keep their length.

    Args:
      body: as it was sent.
      content_type: value of its header Content-Type; empty if there is none.
    """
    is_text = re.search(r"text|json|xml|yaml|javascript", content_type)
    if is_text or (not content_type and b"\0" not in body):
        try:
            return without(body.decode()).encode()
        except UnicodeDecodeError:
            pass
    for secret in known():
        body = secret.sub(lambda match: b"*" * len(match[0]), body)
    return body


def of_tree(tree: Any, is_secret: bool = False) -> Any:
    """Return the values of a YAML tree without secrets.

    Secrets in URLs are removed, and all text under keys whose names say that it is secret.

    Args:
      tree: the values.
      is_secret: whether they are under such a key.
    """
    if isinstance(tree, dict):
        return {
            key: of_tree(value, is_secret or _is_named(key, value)) for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [of_tree(value, is_secret) for value in tree]
    if not isinstance(tree, str) or tree in MODES:
        return tree
    return REMOVED if is_secret else without(tree)


def _is_named(key: Any, value: Any) -> bool:
    """Return whether a key says that its value is secret; `auth: none` in metadata does not."""
    is_sent = str(key).lower() in SENT and not isinstance(value, str)
    return is_sent or _NAMED.search(str(key)) is not None


def headers_without(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of an answer that are kept, with names in lower case."""
    lower_case = {name.lower(): value for name, value in headers.items()}
    return {name: without(value) for name, value in lower_case.items() if name in HEADERS}


def _query(query: str) -> str:
    """Return the query of a URL, with its `?`, without the parameters that are secret."""
    parameters = [text for text in _AND.split(query[1:]) if text]
    public = [text for text in parameters if not _PARAMETER.match(text.partition("=")[0])]
    separator = _AND.search(query)  # XML and JSON write `&` differently
    return f"?{(separator[0] if separator else '&').join(public)}" if public else ""
