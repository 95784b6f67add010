"""Sizes, durations, numbers and names in words: one way each, for pages, terminals, cards and errors."""

import difflib
import re
from collections.abc import Iterable
from numbers import Real

from dgviz.errors import CommandError

_UNITS = "B", "KiB", "MiB", "GiB", "TiB"


def exact_number(value: float) -> str:
    """Return the short text of a number that reads back as that very number: 123456789, 0.1, 1e-17."""
    whole = isinstance(value, int) or (float(value).is_integer() and abs(value) < 2**53)
    return str(int(value)) if whole else repr(float(value))


def size(nbytes: float) -> str:
    """Return bytes in the largest unit of which there is one: 512 B, 1.5 GiB."""
    power = 0
    while power < len(_UNITS) - 1 and nbytes >= 1024 ** (power + 1):
        power += 1
    return f"{nbytes / 1024**power:,.{min(power, 1)}f} {_UNITS[power]}"


def count_bytes(text: str) -> int:
    """Return the bytes that a size means: 500MB, 1.5 GiB, 4096.

    Raises
    ------
    CommandError
        If it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if found is None:
        raise CommandError(f"{text!r} is no size: write bytes, or 500MB, 50GiB, 2 TB")
    power = "bkmgt".index(found[2] or "b")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def duration(seconds: float) -> str:
    """Return seconds as people say them: 0.03 s, 1.4 s, 42 s, 12 min, 3 h 5 min."""
    if seconds < 100:
        return f"{seconds:.{2 if seconds < 1 else 1 if seconds < 10 else 0}f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def some(names: Iterable[object], most: int = 3) -> str:
    """Return the first names with commas between, and how many more there are: a, b, c and 4 more."""
    names = list(map(str, names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def near(name: str, names: Iterable[str]) -> str:
    """Return a question after names like one that there is not, or nothing: ``; did you mean 'scan'?``."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def number(value: object) -> str:
    """Return a figure in four digits, the ends of several's range, or nothing for None."""
    known = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
    if not known:
        return ""
    ends = known if isinstance(known[0], str) else (min(known), max(known))
    return " to ".join(dict.fromkeys(f"{item:.4g}" if isinstance(item, Real) else str(item) for item in ends))
