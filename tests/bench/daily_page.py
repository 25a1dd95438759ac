"""What days of `update` and `publish` took, in Markdown, from what `bench.daily` keeps."""

from __future__ import annotations

from statistics import median

from bench import machine

HEAD = (
    "day",
    "came from the provider",
    "maps reach",
    "revised",
    "sent: objects",
    "MB",
    "release: objects",
    "MB",
    "update, s",
    "publish, s",
    "verify, s",
    "as expected",
)


def line(day):
    """A day in one line, for the terminal."""
    return " | ".join(_cells(day))


def page(found):
    """A table of all days, and what they say together."""
    told = machine.in_words(found["machine"])
    head = (
        f"{told}; commit {(found['commit'] or '?')[:12]}, {found['at'][:10]}. "
        f"{found['cells'][0]} x {found['cells'][1]} cells; {found['seconds']:.0f} s in all."
    )
    lines = [head, "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    lines += [f"| {' | '.join(_cells(day))} |" for day in found["days"]]
    return "\n".join([*lines, "", *_in_words(found)])


def _cells(day):
    came = ", ".join(f"{date[5:]} {version}" for date, version in day["came"]) or "nothing"
    times = [f"{day['seconds'][verb]:.1f}" for verb in ("update", "publish", "verify")]
    return [
        f"{day['number']}, {day['today'][5:]}",
        came,
        day["reached"][5:],
        ", ".join(text[5:] for text in day["revised"]),
        str(day["sent_objects"]),
        f"{day['sent_bytes'] / 1e6:.2f}",
        str(day["release_objects"]),
        f"{day['release_bytes'] / 1e6:.2f}",
        *times,
        "; ".join(day["problems"]) or "yes",
    ]


def _in_words(found):
    days = found["days"]
    sent, whole = (sum(day[key] for day in days) / 1e6 for key in ("sent_bytes", "release_bytes"))
    yield (
        f"In {len(days)} days {sent:.1f} MB were sent of {whole:.1f} MB that the releases have in "
        f"all ({sent / whole:.0%}); the rest was copied by the server."
    )
    middle = [f"{verb} {median(d['seconds'][verb] for d in days):.1f} s" for verb in _VERBS]
    yield f"Medians: {', '.join(middle)}."
    told = f"missing: {found['gap']}"
    said = [(day["number"], text) for day in days for text in day["said"] if told in text]
    if said:
        number, text = said[-1]
        yield f"\nWhat `update` said on day {number}:\n\n    {text}\n"
    differing = ", ".join(found["differing"]) or "nothing"
    yield f"Maps made at once from the files as they stood at the end: {differing} differs."


_VERBS = ("update", "publish", "verify")
