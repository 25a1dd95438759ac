"""Requests with their answers: kept in a folder, found again for a request that is alike."""

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
    """What makes two requests alike: `asked` has the headers of KEYED, `body` is a SHA-256."""

    method: str
    url: str
    asked: tuple[tuple[str, str], ...]
    body: str


class Answer(NamedTuple):
    """Status, headers (names in lower case) and body; of HEAD, `length` is that of the object."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int


def request(method: str, url: str, headers: dict[str, str], body: bytes) -> Request:
    """A request as it is kept and looked for: without secrets."""
    given = {name.lower(): value for name, value in headers.items()}
    asked = tuple((name, given[name]) for name in KEYED if name in given)
    told = redaction.without_in_body(body, "text")
    return Request(method, redaction.without(url), asked, files.sha256(told) if told else "")


@dataclass
class Exchanges:
    """Requests and answers in the order in which they came."""

    made: list[tuple[Request, Answer]] = field(default_factory=list)
    lacking: list[Request] = field(default_factory=list)
    _turns: dict[Request, int] = field(default_factory=lambda: defaultdict(int))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        return sum(len(answer.body) for _, answer in self.made)

    def keep(self, asked: Request, answer: Answer) -> None:
        """Add an answer, without secrets."""
        body = redaction.without_in_body(answer.body, answer.headers.get("content-type", ""))
        length = answer.length + len(body) - len(answer.body)
        kept = Answer(answer.status, redaction.headers_without(answer.headers), body, length)
        with self._lock:
            self.made.append((asked, kept))

    def find(self, asked: Request) -> Answer | None:
        """The answer to a request: of several to one alike, each in its turn, the last for ever.

        A range that was not asked for is cut from what is kept of the object.
        """
        with self._lock:
            alike = [answer for known, answer in self.made if known == asked]
            if alike:
                turn = self._turns[asked]
                self._turns[asked] += 1
                return alike[min(turn, len(alike) - 1)]
            cut = self._cut(asked)
            if cut is None:
                self.lacking.append(asked)
            return cut

    def save(self, folder: Path) -> None:
        """Write the index and the bodies, each once."""
        (folder / BODIES).mkdir(parents=True, exist_ok=True)
        rows: list[Json] = []
        for asked, answer in self.made:
            name = files.sha256(answer.body)[:16] if answer.body else ""
            if name:
                (folder / BODIES / name).write_bytes(answer.body)
            told = {"status": answer.status, "headers": answer.headers, "length": answer.length}
            rows.append({**asked._asdict(), "asked": dict(asked.asked), **told, "content": name})
        (folder / INDEX).write_text(json.dumps(rows, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Exchanges:
        """Read what `save` has written.

        Raises:
          DataError: bodies are missing, or have changed since.
        """
        found, changed = cls(), set[str]()
        for row in json.loads((folder / INDEX).read_text()):
            asked = Request(row["method"], row["url"], tuple(row["asked"].items()), row["body"])
            name = row["content"]
            body = _body(folder / BODIES / name) if name else b""
            if name and files.sha256(body)[:16] != name:
                changed.add(f"{BODIES}/{name}: changed since it was recorded, or gone")
            found.made.append((asked, Answer(row["status"], row["headers"], body, row["length"])))
        if changed:
            raise DataError(str(folder), *sorted(changed), remedy="record it again")
        return found

    def _cut(self, asked: Request) -> Answer | None:
        """A part of an object of which more is kept: libraries change what they ask for."""
        wanted = _RANGE.match(dict(asked.asked).get("range", ""))
        if asked.method != "GET" or wanted is None:
            return None
        for known, answer in self.made:
            if (known.method, known.url) != ("GET", asked.url) or answer.status not in (200, 206):
                continue
            told = re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("content-range", ""))
            begin, total = (int(told[1]), int(told[2])) if told else (0, answer.length)
            first, last = wanted.groups()
            low = int(first) if first else max(0, total - int(last))
            high = min(int(last) + 1, total) if first and last else total
            if begin <= low < high <= begin + len(answer.body):
                body = answer.body[low - begin : high - begin]
                headers = answer.headers | {"content-range": f"bytes {low}-{high - 1}/{total}"}
                return Answer(206, headers, body, len(body))
        return None


def _body(path: Path) -> bytes:
    """A kept body; nothing where its file is gone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
