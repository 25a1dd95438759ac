"""What must not be in a recording: credentials, signatures, cookies, names of accounts."""

from __future__ import annotations

import netrc
import os
import re
from typing import Any

from pipeline.errors import SECRET, SHORTEST_SECRET

REMOVED = "removed"
ACCOUNT = re.compile("USERNAME|USER_NAME|LOGIN|ACCOUNT")
SHORTEST_ACCOUNT = 4
PUBLIC = ("anonymous", "token", "root", "user")  # names of accounts that are nobody's
# Headers of an answer that are kept; all others (cookies, ids of requests and users) are not.
HEADERS = {
    *("accept-ranges", "content-encoding", "content-range", "content-type", "etag"),
    *("last-modified", "location", "link", "retry-after", "cmr-hits", "cmr-search-after"),
    *("x-amz-bucket-region", "x-goog-hash", "x-goog-generation", "x-goog-stored-content-length"),
    *("x-goog-stored-content-encoding", "x-ms-blob-type"),
}
# Parameters of a URL that sign it or say who asks; those that lead to the next page are neither.
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
SENT = ("headers", "cookies", "auth")  # of an entry's requests; replaying needs none of them
MODES = ("anon", "cloud", "google_default", "browser", "token")  # ways to log in, under `token`
_KEYS = re.compile(r'"(secretAccessKey|access_token)"')
_ENDS = re.compile(r'("expiration(?:_date)?"\s*:\s*")[^"]*"', re.IGNORECASE)
_OWNER = re.compile(r"<Owner>.*?</Owner>", re.DOTALL)
LATE = "2999-12-31 00:00:00+00:00"  # keys that are replayed never end


def known() -> list[re.Pattern[bytes]]:
    """Every secret and name of an account that this machine's environment and ~/.netrc hold.

    Names and short passwords count as whole words only: they may be parts of ordinary ones.
    """
    secrets = {v for k, v in os.environ.items() if SECRET.search(k) and len(v) >= SHORTEST_SECRET}
    names = {v for k, v in os.environ.items() if k.startswith("EARTHDATA_") and ACCOUNT.search(k)}
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    for login, account, password in hosts.values():
        names |= {login or "", account or ""}
        (secrets if password and len(password) >= SHORTEST_SECRET else names).add(password or "")
    made = [re.escape(text.strip()) for text in sorted(secrets, key=len, reverse=True)]
    made += [
        rf"(?<!\w){re.escape(name)}(?!\w)"
        for name in sorted(names - {*PUBLIC})
        if len(name) >= SHORTEST_ACCOUNT
    ]
    return [re.compile(pattern.encode()) for pattern in made if pattern]


def without(text: str) -> str:
    """A text without secrets; URLs in it keep the parameters that say what is asked for."""
    told = text.encode()
    for secret in known():
        told = secret.sub(REMOVED.encode(), told)
    text = told.decode()
    text = _URL.sub(lambda m: f"{m[1]}{m[3]}{_query(m[4] or '')}", text)
    for shape in _SHAPES:
        text = shape.sub(REMOVED, text)
    if _KEYS.search(text):
        text = _ENDS.sub(rf'\g<1>{LATE}"', text)
    text = _FIELD.sub(rf'\g<1>{REMOVED}"', text)
    text = _ELEMENT.sub(rf"\g<1>{REMOVED}", text)
    return _OWNER.sub(f"<Owner><ID>{REMOVED}</ID></Owner>", text)


def without_in_body(body: bytes, kind: str) -> bytes:
    """The body of an answer without secrets; one that is no text keeps its length.

    Args:
      body: as it was sent.
      kind: its Content-Type.
    """
    if re.search(r"text|json|xml|yaml|javascript", kind) or (not kind and b"\0" not in body):
        try:
            return without(body.decode()).encode()
        except UnicodeDecodeError:
            pass
    for secret in known():
        body = secret.sub(lambda found: b"*" * len(found[0]), body)
    return body


def of_tree(tree: Any, named: bool = False) -> Any:
    """What YAML holds, without secrets: in URLs, and under keys that are named for them.

    Args:
      tree: the values.
      named: whether they are all under such a key.
    """
    if isinstance(tree, dict):
        return {key: of_tree(value, named or _is_named(key, value)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [of_tree(value, named) for value in tree]
    if not isinstance(tree, str) or tree in MODES:
        return tree
    return REMOVED if named else without(tree)


def _is_named(key: Any, value: Any) -> bool:
    """Whether a key says that its value is secret; `auth: none` in metadata is not."""
    is_sent = str(key).lower() in SENT and not isinstance(value, str)
    return is_sent or _NAMED.search(str(key)) is not None


def headers_without(headers: dict[str, str]) -> dict[str, str]:
    """The headers of an answer that are kept, names in lower case."""
    kept = {name.lower(): value for name, value in headers.items()}
    return {name: without(value) for name, value in kept.items() if name in HEADERS}


def _query(query: str) -> str:
    """A query, with its `?`, without the parameters that are secret."""
    parts = [part for part in _AND.split(query[1:]) if part]
    left = [part for part in parts if not _PARAMETER.match(part.partition("=")[0])]
    between = _AND.search(query)  # in XML and JSON it is written otherwise
    return f"?{(between[0] if between else '&').join(left)}" if left else ""
