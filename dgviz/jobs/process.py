"""Which process is meant, for a number alone is used again after a while; and the last that one said."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import psutil

HEARTBEAT = 15.0
"""Seconds between two signs of life of a job."""
_UNNAMED = {"host": None, "boot": None}
_SAME_START = 2.0  # seconds that a start time in seconds since the epoch may move when the clock is set


def read_tail(file: BinaryIO, most: int) -> str:
    """Return the last bytes that a process wrote to a file, as text."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    return file.read().decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line of a text that says anything, or an empty one."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


@cache
def this_machine() -> dict[str, str]:
    """Return what tells this machine, since it was started last, from every other: its name and its boot's id."""
    boot = ""
    with suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            boot = subprocess.check_output(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], text=True, timeout=5)
        else:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return {"host": socket.gethostname(), "boot": boot.strip()}


def describe_process(pid: int) -> dict[str, Any]:
    """Return what identifies a process: on which machine it runs, its number there, and when it was started."""
    return {"pid": pid, "started": _started(pid), **this_machine()}


def is_here(process: Mapping[str, Any]) -> bool:
    """Return whether a process that was described is one of this machine, since it was started last.

    What an older version described named no machine; its jobs were of this one.
    """
    return {name: process.get(name) for name in this_machine()} in (this_machine(), _UNNAMED)


def is_alive(pid: int, started: float, host: str | None = None, boot: str | None = None) -> bool:
    """Return whether that very process of this machine runs; a zombie has ended and only waits to be collected."""
    try:
        process = psutil.Process(pid)
        began = process.create_time() if host is None else _started(pid)
        return abs(began - started) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _started(pid: int) -> float:
    """Return when a process was started, by a clock that nobody sets where there is one.

    In seconds since the machine was started on Linux, where a time since the epoch would move with the clock.
    """
    try:
        # Field 22, counted from behind the name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return psutil.Process(pid).create_time()
