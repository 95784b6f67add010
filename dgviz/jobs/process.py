"""Which process is meant, for a number alone is used again after a while; and the last that one said."""

import os
from typing import BinaryIO

import psutil

# The boot time that start times are counted from moves a little when the clock is set.
_SAME_START = 2.0  # seconds


def read_tail(file: BinaryIO, most: int) -> str:
    """Return the last bytes that a process wrote to a file, as text."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    return file.read().decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line of a text that says anything, or an empty one."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def describe_process(pid: int) -> dict[str, float]:
    """Return what identifies a process of this machine, as the arguments of `is_alive`."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def is_alive(pid: int, started: float) -> bool:
    """Return whether that very process runs; a zombie has ended and only waits to be collected."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
