"""How large the store of spectra may grow: past its limit, what was used longest ago is forgotten first."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from dgviz.errors import StateError
from dgviz.files import read_record, write_json
from dgviz.words import size

DEFAULT_LIMIT = 20 * 2**30
"""Bytes: the scans of some ten models of seven billion parameters."""
_FILE, _LOCK = "limit.json", ".trim"
_ROOM = 0.1  # of the limit, made free at a time, so that not every entry that is put looks at all others
_USED = 3600.0  # seconds: a use is noted no more often
_looked: dict[Path, int] = {}  # bytes that this process has put since it looked at all entries


def read_limit(root: Path) -> int:
    """Return the most bytes that a store may hold.

    Raises
    ------
    StateError
        If it was set, and cannot be read.
    """
    file = root / _FILE
    known = read_record(file, "bytes")
    if known is None:
        return DEFAULT_LIMIT
    if type(known["bytes"]) is not int or known["bytes"] < 0:
        raise StateError(f"{file} holds {known['bytes']!r} for a number of bytes; set the limit again")
    return known["bytes"]


def set_limit(root: Path, nbytes: int) -> None:
    """Set the most bytes that a store may hold, and forget what is beyond."""
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / _FILE, {"bytes": nbytes})
    trim(root, nbytes)


def note_use(file: Path) -> None:
    """Note that an entry was used now: its time of access tells it, that of modification stays its own."""
    with contextlib.suppress(OSError):
        note_uses({str(file): file.stat()}, Path)


def note_uses(stats: Mapping[str, os.stat_result], file_of: Callable[[str], Path]) -> None:
    """Note that entries were used now, by what the system says of their files."""
    long_ago = time.time() - _USED
    for entry, stat in stats.items():
        if stat.st_atime < long_ago and stat.st_mtime < long_ago:
            with contextlib.suppress(OSError):  # a store that is only read
                os.utime(file_of(entry), ns=(time.time_ns(), stat.st_mtime_ns))


def _last_use(stat: os.stat_result) -> float:
    return max(stat.st_atime, stat.st_mtime)


def note_growth(root: Path, nbytes: int) -> None:
    """Note that an entry was put; look at the whole store when a good part of its limit was."""
    try:
        limit = read_limit(root)
    except StateError:  # `dgviz cache` says so
        limit = DEFAULT_LIMIT
    _looked[root] = _looked.get(root, limit) + nbytes  # the first time in a process at once
    if _looked[root] > _ROOM * limit / 4:
        _looked[root] = 0
        trim(root, limit)


def trim(root: Path, limit: int) -> int:
    """Remove what was used longest ago until the limit holds; return the bytes removed."""
    entries = []
    for file in root.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            entries.append((_last_use(stat), stat.st_size, file))
    total = sum(nbytes for _, nbytes, _ in entries)
    if total <= limit:
        return 0
    removed = 0
    with contextlib.suppress(Timeout), FileLock(root / _LOCK, timeout=0):  # another process is at it
        for _, nbytes, file in sorted(entries):
            if total - removed <= (1 - _ROOM) * limit:
                break
            with contextlib.suppress(OSError):
                file.unlink()
                removed += nbytes
        logging.getLogger("dgviz").warning(
            f"the store of spectra has reached its limit of {size(limit)}: {size(removed)} used longest ago are "
            "forgotten; python -m dgviz cache limit SIZE sets another"
        )
    return removed
