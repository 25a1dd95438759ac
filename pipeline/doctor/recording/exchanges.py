"""Remove credentials, signatures, cookies and account names from what a recording keeps.

Keep requests with their answers in a folder, and find the answer to an equal request.
"""

from __future__ import annotations

import json
import netrc
import os
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import files
from pipeline.errors import MIN_SECRET_LENGTH, SECRET_NAMES, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.files import Json


REMOVED = "removed"
ACCOUNT_VARIABLE = re.compile("USERNAME|USER_NAME|LOGIN|ACCOUNT")
SHORTEST_ACCOUNT = 4
PUBLIC_ACCOUNTS = ("anonymous", "token", "root", "user")  # account names that identify nobody

# Headers of an answer that are kept. All others are removed, such as cookies and ids of users.
KEPT_HEADERS = {
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
_AMPERSAND = re.compile(r"&amp;|&|\\u0026")

_SECRET_SHAPES = (
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}|(?<=basic )[\w+/=-]{8,}"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),  # JSON web tokens
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
)

_SECRET_FIELD = re.compile(
    r'("(?!next\w*token"|page_?token"|continuation_?token")'
    r"(?:\w*(?:token|secret|passw|signature|credential|api[_-]?key|access_?key|cookie|session_?id)"
    r'\w*|authorization|uid|user_?id|user_?name|email(?:_?address)?)"\s*:\s*")[^"]*"',
    re.IGNORECASE,
)

_SECRET_ELEMENT = re.compile(
    r"(<(AccessKeyId|SecretAccessKey|SessionToken|\w*[Pp]assword)>)[^<]*(?=</)", re.IGNORECASE
)

_SECRET_KEY = re.compile(
    "^(user|username)$|key$|secret|token|passw|api[_-]?key|authorization|cookie"
    "|credential|connection_string|signature|session",
    re.IGNORECASE,
)

SECRET_SETTINGS = ("headers", "cookies", "auth")  # settings of an entry that a replay does not need

# Values of a setting `token` that name a way to log in, and are no secrets.
LOGIN_MODES = ("anon", "cloud", "google_default", "browser", "token")
_TEMPORARY_KEYS = re.compile(r'"(secretAccessKey|access_token)"')
_EXPIRATION = re.compile(r'("expiration(?:_date)?"\s*:\s*")[^"]*"', re.IGNORECASE)
_OWNER = re.compile(r"<Owner>.*?</Owner>", re.DOTALL)
NEVER = "2999-12-31 00:00:00+00:00"  # when keys in a recording expire: never


def known_secrets() -> list[re.Pattern[bytes]]:
    """Return patterns of the secrets and account names in this machine's environment and ~/.netrc.

    Names and short passwords match whole words only, since they may be parts of ordinary words.
    """
    secrets = {
        v for k, v in os.environ.items() if SECRET_NAMES.search(k) and len(v) >= MIN_SECRET_LENGTH
    }
    names = {
        v
        for k, v in os.environ.items()
        if k.startswith("EARTHDATA_") and ACCOUNT_VARIABLE.search(k)
    }
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    for login, account, password in hosts.values():
        names |= {login or "", account or ""}
        is_long = password and len(password) >= MIN_SECRET_LENGTH
        (secrets if is_long else names).add(password or "")
    patterns = [re.escape(text.strip()) for text in sorted(secrets, key=len, reverse=True)]
    patterns += [
        rf"(?<!\w){re.escape(name)}(?!\w)"
        for name in sorted(names - {*PUBLIC_ACCOUNTS})
        if len(name) >= SHORTEST_ACCOUNT
    ]
    return [re.compile(pattern.encode()) for pattern in patterns if pattern]


def remove_secrets(text: str) -> str:
    """Return a text without secrets; URLs in it keep the parameters that select the data."""
    content = text.encode()
    for secret in known_secrets():
        content = secret.sub(REMOVED.encode(), content)
    text = content.decode()
    text = _URL.sub(lambda match: f"{match[1]}{match[3]}{_public_query(match[4] or '')}", text)
    for shape in _SECRET_SHAPES:
        text = shape.sub(REMOVED, text)
    if _TEMPORARY_KEYS.search(text):
        text = _EXPIRATION.sub(rf'\g<1>{NEVER}"', text)
    text = _SECRET_FIELD.sub(rf'\g<1>{REMOVED}"', text)
    text = _SECRET_ELEMENT.sub(rf"\g<1>{REMOVED}", text)
    return _OWNER.sub(f"<Owner><ID>{REMOVED}</ID></Owner>", text)


def remove_secrets_from_body(body: bytes, content_type: str) -> bytes:
    """Return the body of an answer without secrets; binary bodies keep their length.

    Args:
      body: as it was sent.
      content_type: value of its header Content-Type; empty if there is none.
    """
    is_text = re.search(r"text|json|xml|yaml|javascript", content_type)
    if is_text or (not content_type and b"\0" not in body):
        try:
            return remove_secrets(body.decode()).encode()
        except UnicodeDecodeError:
            pass
    for secret in known_secrets():
        body = secret.sub(lambda match: b"*" * len(match[0]), body)
    return body


def remove_secrets_from_tree(tree: Any, is_secret: bool = False) -> Any:
    """Return the values of a YAML tree without secrets.

    Secrets in URLs are removed, and all text under keys whose names say that it is secret.

    Args:
      tree: the values.
      is_secret: whether they are under such a key.
    """
    if isinstance(tree, dict):
        return {
            key: remove_secrets_from_tree(value, is_secret or _names_secret(key, value))
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [remove_secrets_from_tree(value, is_secret) for value in tree]
    if not isinstance(tree, str) or tree in LOGIN_MODES:
        return tree
    return REMOVED if is_secret else remove_secrets(tree)


def _names_secret(key: Any, value: Any) -> bool:
    """Return whether a key says that its value is secret; `auth: none` in metadata does not."""
    is_sent = str(key).lower() in SECRET_SETTINGS and not isinstance(value, str)
    return is_sent or _SECRET_KEY.search(str(key)) is not None


def select_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of an answer that are kept, with names in lower case."""
    lower_case = {name.lower(): value for name, value in headers.items()}
    return {
        name: remove_secrets(value) for name, value in lower_case.items() if name in KEPT_HEADERS
    }


def _public_query(query: str) -> str:
    """Return the query of a URL, with its `?`, without the parameters that are secret."""
    parameters = [text for text in _AMPERSAND.split(query[1:]) if text]
    public = [text for text in parameters if not _PARAMETER.match(text.partition("=")[0])]
    separator = _AMPERSAND.search(query)  # XML and JSON write `&` differently
    return f"?{(separator[0] if separator else '&').join(public)}" if public else ""


KEY_HEADERS = ("range", "cmr-search-after")  # headers of a request that change its answer
INDEX, BODIES = "exchanges.json", "bodies"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


class Request(NamedTuple):
    """What makes two requests equal.

    Attributes:
      method: HTTP method.
      url: URL without secrets.
      headers: names and values of the headers that change the answer.
      body: SHA-256 of the body without secrets; empty if there is no body.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: str


class Answer(NamedTuple):
    """An answer of a server.

    Attributes:
      status: HTTP status.
      headers: values by name in lower case.
      body: the body, or the part of it that was read.
      length: bytes of the whole body; for HEAD, of the object.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    length: int


def make_request(method: str, url: str, headers: dict[str, str], body: bytes) -> Request:
    """Return the key under which a request's answer is kept and looked up, without secrets."""
    lower_case = {name.lower(): value for name, value in headers.items()}
    keyed = tuple((name, lower_case[name]) for name in KEY_HEADERS if name in lower_case)
    redacted = remove_secrets_from_body(body, "text")
    digest = files.sha256(redacted) if redacted else ""
    return Request(method, remove_secrets(url), keyed, digest)


@dataclass
class Exchanges:
    """Requests and answers in the order in which they came.

    Attributes:
      recorded: pairs of request and answer.
      unanswered: requests of a replay for which there is no answer.
    """

    recorded: list[tuple[Request, Answer]] = field(default_factory=list)
    unanswered: list[Request] = field(default_factory=list)
    _turns: dict[Request, int] = field(default_factory=lambda: defaultdict(int))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """Return the bytes of all bodies."""
        return sum(len(answer.body) for _, answer in self.recorded)

    def keep(self, request: Request, answer: Answer) -> None:
        """Add an answer, without secrets."""
        body = remove_secrets_from_body(answer.body, answer.headers.get("content-type", ""))
        length = answer.length + len(body) - len(answer.body)
        redacted = Answer(answer.status, select_headers(answer.headers), body, length)
        with self._lock:
            self.recorded.append((request, redacted))

    def find(self, request: Request) -> Answer | None:
        """Return the answer to a request; None if there is none.

        Equal requests get their answers in the order of the recording, and the last one from then
        on. A byte range that was not recorded is cut from a larger part of the same object.
        """
        with self._lock:
            answers = [answer for known, answer in self.recorded if known == request]
            if answers:
                turn = self._turns[request]
                self._turns[request] += 1
                return answers[min(turn, len(answers) - 1)]
            part = self._cut(request)
            if part is None:
                self.unanswered.append(request)
            return part

    def save(self, folder: Path) -> None:
        """Write the index, and each distinct body once."""
        (folder / BODIES).mkdir(parents=True, exist_ok=True)
        rows: list[Json] = []
        for request, answer in self.recorded:
            name = files.sha256(answer.body)[:16] if answer.body else ""
            if name:
                (folder / BODIES / name).write_bytes(answer.body)
            rows.append(
                {
                    "method": request.method,
                    "url": request.url,
                    "asked": dict(request.headers),
                    "body": request.body,
                    "status": answer.status,
                    "headers": answer.headers,
                    "length": answer.length,
                    "content": name,
                }
            )
        (folder / INDEX).write_text(json.dumps(rows, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Exchanges:
        """Read what `save` has written.

        Raises:
          DataError: If bodies are missing or have changed since.
        """
        exchanges, changed = cls(), set[str]()
        for row in json.loads((folder / INDEX).read_text()):
            request = Request(row["method"], row["url"], tuple(row["asked"].items()), row["body"])
            name = row["content"]
            body = _read_body(folder / BODIES / name) if name else b""
            if name and files.sha256(body)[:16] != name:
                changed.add(f"{BODIES}/{name}: missing, or changed since it was recorded")
            answer = Answer(row["status"], row["headers"], body, row["length"])
            exchanges.recorded.append((request, answer))
        if changed:
            raise DataError(str(folder), *sorted(changed), remedy="record it again")
        return exchanges

    def _cut(self, request: Request) -> Answer | None:
        """Cut a byte range from a larger recorded part: libraries change which ranges they read."""
        requested = _RANGE.match(dict(request.headers).get("range", ""))
        if request.method != "GET" or requested is None:
            return None
        for known, answer in self.recorded:
            if (known.method, known.url) != ("GET", request.url):
                continue
            if answer.status not in (200, 206):
                continue
            stated = re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("content-range", ""))
            begin, total = (int(stated[1]), int(stated[2])) if stated else (0, answer.length)
            first, last = requested.groups()
            low = int(first) if first else max(0, total - int(last))
            high = min(int(last) + 1, total) if first and last else total
            if begin <= low < high <= begin + len(answer.body):
                body = answer.body[low - begin : high - begin]
                headers = answer.headers | {"content-range": f"bytes {low}-{high - 1}/{total}"}
                return Answer(206, headers, body, len(body))
        return None


def _read_body(path: Path) -> bytes:
    """Read a body; empty if its file is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
