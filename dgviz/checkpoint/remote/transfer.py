"""Ranges of bytes of remote files, brought here: in parts, several at once, each checked and asked for again."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

from dgviz.checkpoint.remote import http, object_store
from dgviz.checkpoint.remote.file import Interrupted, RemoteFile, attempts
from dgviz.errors import CheckpointError

PART_BYTES = 16 * 2**20
"""At most so many bytes are asked for at once: what breaks off is asked for again."""
STREAMS = 16
"""So many requests are under way together: one connection rarely fills a line."""
KEPT_BYTES = 2**30
"""So much of what was read last stays in memory: both sides of a weight are looked at more than once."""
_kept: dict[tuple[RemoteFile, int, int], memoryview] = {}
_lock = threading.Lock()


def read_again(file: RemoteFile, buffer: bytearray, start: int) -> None:
    """Fill a buffer as `read_into` does, with what was read last if it is that."""
    view, key = memoryview(buffer).cast("B"), (file, start, len(buffer))
    with _lock:
        known = _kept.get(key)
    if known is not None:
        view[:] = known
        return
    read_into(file, buffer, start)
    if len(view) <= KEPT_BYTES:
        with _lock:
            _kept[key] = memoryview(bytes(view))
            while sum(map(len, _kept.values())) > KEPT_BYTES:
                del _kept[next(iter(_kept))]


def read_into(file: RemoteFile, buffer: bytearray, start: int) -> None:
    """Fill a buffer with a file's bytes.

    Raises
    ------
    CheckpointError
        If it cannot be read, or its contents are others than when it was opened.
    """
    view = memoryview(buffer).cast("B")
    parts = [(start + begin, view[begin : begin + PART_BYTES]) for begin in range(0, len(view), PART_BYTES)]
    if len(parts) == 1:
        _read_part(file, *parts[0])
    elif parts:
        with ThreadPoolExecutor(STREAMS) as pool:
            for _ in pool.map(lambda part: _read_part(file, *part), parts):
                pass
    if not file.address.startswith("http"):  # whose every answer says of which contents it is
        object_store.refuse_changed(file)


def read_range(file: RemoteFile, start: int, nbytes: int) -> bytearray:
    """Return a range of a file's bytes; see `read_into`."""
    buffer = bytearray(nbytes)
    read_into(file, buffer, start)
    return buffer


def read_whole(file: RemoteFile) -> bytes:
    """Return all of a file, compared with its digest where one is known."""
    content = bytes(read_range(file, 0, file.size))
    kind, _, digest = file.digest.partition(":")
    hashed = {
        "sha256": lambda: hashlib.sha256(content),
        "git": lambda: hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False),
    }
    if kind and (found := hashed[kind]().hexdigest()) != digest:
        raise CheckpointError(
            f"{file.address} came with the {kind} hash {found[:12]}... where its place says {digest[:12]}...: it was "
            "damaged on the way, or there; try again"
        )
    return content


def _read_part(file: RemoteFile, start: int, view: memoryview) -> None:
    """Fill a part, going on from where it broke off."""
    iter_range = http.iter_range if file.address.startswith("http") else object_store.iter_range
    done = 0
    for problem in attempts(file.address):
        try:
            for piece in iter_range(file, start + done, start + len(view)):
                if done + len(piece) > len(view):
                    raise CheckpointError(f"{file.address} was sent with more bytes than were asked for: try again")
                view[done : done + len(piece)] = piece
                done += len(piece)
            if done < len(view):
                problem.append(f"{done} of {len(view)} bytes came")
        except Interrupted as error:
            problem.append(str(error))
