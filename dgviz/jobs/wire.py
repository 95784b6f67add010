"""What both ends of a worker's private socket share: frames, and an environment that finds the same modules.

A deadline holds in the middle of a frame too, which `multiprocessing.connection` has none for.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Mapping

_LENGTH = struct.Struct("!Q")


def send_frame(channel: socket.socket, payload: bytes, deadline: float | None = None) -> None:
    """Send one length-prefixed frame."""
    channel.settimeout(_seconds_left(deadline))
    channel.sendall(_LENGTH.pack(len(payload)))
    channel.settimeout(_seconds_left(deadline))
    channel.sendall(payload)


def receive_frame(channel: socket.socket, deadline: float | None = None) -> bytearray:
    """Return the payload of the next frame."""
    (length,) = _LENGTH.unpack(_receive_exactly(channel, _LENGTH.size, deadline))
    return _receive_exactly(channel, length, deadline)


def _receive_exactly(channel: socket.socket, length: int, deadline: float | None) -> bytearray:
    data = bytearray(length)
    view, start = memoryview(data), 0
    while start < length:
        channel.settimeout(_seconds_left(deadline))
        count = channel.recv_into(view[start:])
        if count == 0:
            raise EOFError("the other end of the socket closed")
        start += count
    return data


def _seconds_left(deadline: float | None) -> float | None:
    """Return the time-out to set: never 0, which would make the socket non-blocking."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline passed")
    return left


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment, made so that a child Python imports what this process imports.

    `streamlit run` puts the app's folder on `sys.path`, and a console script started elsewhere has no project
    folder at all, so the path is handed over rather than left to the child's working directory.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - a string is wanted
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}
