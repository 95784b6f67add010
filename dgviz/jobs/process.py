"""Which process is meant: a number alone is used again after a while."""

import psutil

# The boot time that start times are counted from moves a little when the clock is set.
_SAME_START = 2.0  # seconds


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
