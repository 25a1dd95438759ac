"""Keep requests with their answers in a folder, and find the answer to an equal request."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pipeline import files
from pipeline.errors import DataError
from pipeline.recording import redaction

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.files import Json

KEYED = ("range", "cmr-search-after")  # headers of a request that change its answer
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


def request(method: str, url: str, headers: dict[str, str], body: bytes) -> Request:
    """Return the key under which a request's answer is kept and looked up, without secrets."""
    lower_case = {name.lower(): value for name, value in headers.items()}
    keyed = tuple((name, lower_case[name]) for name in KEYED if name in lower_case)
    redacted = redaction.without_in_body(body, "text")
    digest = files.sha256(redacted) if redacted else ""
    return Request(method, redaction.without(url), keyed, digest)


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
        body = redaction.without_in_body(answer.body, answer.headers.get("content-type", ""))
        length = answer.length + len(body) - len(answer.body)
        redacted = Answer(answer.status, redaction.headers_without(answer.headers), body, length)
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
            body = _body(folder / BODIES / name) if name else b""
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


def _body(path: Path) -> bytes:
    """Read a body; empty if its file is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
