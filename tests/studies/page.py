"""Pages in docs/ whose tables a command makes."""

from __future__ import annotations

import re


def placed(page, name, written, command):
    """The page with what a command has written between the marks of that name."""
    begin, end = f"<!-- {name}: made by {command} -->", f"<!-- end of {name} -->"
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    made, n = marked.subn(lambda _: f"{begin}\n\n{written}\n\n{end}", page)
    if n != 1:
        raise ValueError(f"{n} places marked '{begin}', expected one")
    return made
