"""The hash of a tensor's contents, computed once per file version and remembered on disk."""

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from dgviz.checkpoint.read import iter_chunks, read_sample, read_samples
from dgviz.checkpoint.remote.file import RemoteFile
from dgviz.checkpoint.remote.record import remote_file
from dgviz.checkpoint.types import Checkpoint, DerivedTensor, TensorInfo
from dgviz.errors import CheckpointError
from dgviz.files import FileStamp, cache_dir, file_stamp

_SCHEMA = """CREATE TABLE IF NOT EXISTS hashes (
    path BLOB, start INTEGER, nbytes INTEGER, kind TEXT, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    inode INTEGER, sample BLOB, hash TEXT, PRIMARY KEY (path, start, nbytes, kind)) WITHOUT ROWID"""
_MANY = 1024  # tensors of one file, from which on their hashes are remembered together as well
_TOGETHER = -1  # the place that such a row has for a tensor's
_DATABASE = "hashes-3.sqlite"  # the number is that of what it holds

# A file changed twice within one tick of its file system's clock keeps its time stamp: hashes of files touched
# this recently are not remembered. Two seconds is the coarsest clock in use (FAT).
_SETTLED_NS = 2_000_000_000

# Other processes hold the database for less than a millisecond. One that holds it for longer is not waited for again
# at every tensor: hashing goes on without the database for a while.
_BUSY_SECONDS, _PAUSE_SECONDS = 0.05, 30.0


def content_hash(info: TensorInfo) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes, as hexadecimal.

    SHA-256 because common processors have instructions for it, and then it is twice as fast as BLAKE2b. The hash is
    remembered in `cache_dir` for as long as the file has the size, times (of modification and of the last change of
    any kind) and inode it had, and a sample of the tensor's bytes is the same: a second call reads that sample only.
    A derived tensor is hashed by its recipe and the hashes of its parts: nothing is computed. A remote one is hashed
    by the digest or ETag of its file and its place there: nothing is read, and a copy here has another hash.

    Raises
    ------
    CheckpointError
        If the file is gone, unreadable, shorter than when it was opened, or changes while it is read.
    """
    if isinstance(info, DerivedTensor):
        return _derived_hash(info, map(content_hash, info.parts))
    remote = remote_file(info.file)
    if remote is not None:
        return _remote_hash(info, remote)
    before = _stamp(info.file)
    (known,) = _recall([info])
    if known is not None:
        return known
    digest = hashlib.sha256(_kind(info).encode())
    for chunk in iter_chunks(info):
        digest.update(chunk)
    sample = read_sample(info)
    if _stamp(info.file) != before:
        raise CheckpointError(f"{info.file} changed while tensor {info.name!r} was read: wait until it is complete")
    if time.time_ns() - max(before.mtime_ns, before.ctime_ns) > _SETTLED_NS:
        statement = "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        _execute(statement, (os.fsencode(info.file), *_key(info), *before, sample, digest.hexdigest()))
    return digest.hexdigest()


def is_hashed(info: TensorInfo) -> bool:
    """Return whether `content_hash` remembers this tensor, so that it reads a sample of it only.

    Raises
    ------
    CheckpointError
        If the file is gone.
    """
    return known_hashes([info]) != [None]


def known_hashes(infos: Sequence[TensorInfo]) -> list[str | None]:
    """Return `content_hash` of tensors, None where it is not remembered: a sample of each is read.

    Stored tensors take one look-up for each of their files, derived ones one for themselves.

    Parameters
    ----------
    infos : sequence of TensorInfo
        Any number of tensors, derived ones too.

    Raises
    ------
    CheckpointError
        If a file is gone.
    """
    found: list[str | None] = [None] * len(infos)
    by_file: dict[Path, list[int]] = {}
    for place, info in enumerate(infos):
        if isinstance(info, DerivedTensor):
            parts = known_hashes(info.parts)
            found[place] = None if None in parts else _derived_hash(info, parts)
        else:
            by_file.setdefault(info.file, []).append(place)
    for file, places in by_file.items():
        remote, own = remote_file(file), [infos[place] for place in places]
        hashes = _recall(own) if remote is None else [_remote_hash(info, remote) for info in own]
        for place, known in zip(places, hashes, strict=True):
            found[place] = known
    return found


def sample_contents(checkpoint: Checkpoint) -> str:
    """Return a digest of a sample of every tensor: the same for a copy of a checkpoint, whatever its files' dates."""
    infos, waiting = [], list(checkpoint.tensors.values())
    while waiting:
        infos.append(info := waiting.pop())
        if isinstance(info, DerivedTensor):
            waiting += info.parts
    afar = {file: remote_file(file) for file in {info.file for info in infos}}
    stored = [info for info in infos if not isinstance(info, DerivedTensor) and afar[info.file] is None]
    digest = hashlib.sha256("\n".join([f"{info.name}|{_kind(info)}" for info in infos]).encode())
    digest.update(b"".join(read_samples(stored)))
    for info in infos:
        if isinstance(info, DerivedTensor):
            digest.update(info.recipe.encode())
        elif (remote := afar[info.file]) is not None:
            digest.update(_remote_hash(info, remote).encode())
    return digest.hexdigest()


def _derived_hash(info: DerivedTensor, parts: Iterable[str]) -> str:
    """Return the hash of a derived tensor from those of its parts."""
    return hashlib.sha256("|".join([info.recipe, _kind(info), *parts]).encode()).hexdigest()


def _remote_hash(info: TensorInfo, remote: RemoteFile) -> str:
    """Return the hash of a remote tensor's contents, by what its file's are known by and its place there: unread."""
    return hashlib.sha256(f"{_kind(info)}{remote.identity}:{info.start}:{info.nbytes}".encode()).hexdigest()


def _kind(info: TensorInfo) -> str:
    return _kind_text(info.dtype, info.shape)


@lru_cache(maxsize=1024)
def _kind_text(dtype: str, shape: tuple[int, ...]) -> str:
    """Return dtype and shape as a hash has them; few differ in all the tensors of a model."""
    return f"{dtype}:{','.join(map(str, shape))}:"


def _stamp(file: Path) -> FileStamp:
    try:
        return file_stamp(file.stat())
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error


def _key(info: TensorInfo) -> tuple[int, int, str]:
    return info.start, info.nbytes, _kind(info)


def _recall(infos: Sequence[TensorInfo]) -> list[str | None]:
    """Return the hashes that are remembered of tensors of one file, as the file is now; None for the others."""
    return _recall_each(infos) if len(infos) < _MANY else _recall_many(infos)


def _recall_each(infos: Sequence[TensorInfo]) -> list[str | None]:
    """Return what `_recall` does, from a row for each."""
    file, values = infos[0].file, ()
    query = "SELECT start, nbytes, kind, sample, hash FROM hashes WHERE (path, size, mtime_ns, ctime_ns, inode)"
    query += " = (?, ?, ?, ?, ?) AND start >= 0"
    if len(infos) == 1:
        query, values = f"{query} AND (start, nbytes, kind) = (?, ?, ?)", _key(infos[0])
    found = _execute(query, (os.fsencode(file), *_stamp(file), *values))
    rows = {(start, nbytes, kind): known for start, nbytes, kind, *known in found}
    known = [rows.get(_key(info)) for info in infos]
    samples = iter(read_samples([info for info, row in zip(infos, known, strict=True) if row is not None]))
    return [None if row is None or next(samples) != row[0] else row[1] for row in known]


def _recall_many(infos: Sequence[TensorInfo]) -> list[str | None]:
    """Return what `_recall` does of very many tensors: from one row where they have been asked for together before.

    It is there once a row for each was, and its sample is that of all of them.
    """
    file, stamp = os.fsencode(infos[0].file), _stamp(infos[0].file)
    asked = hashlib.sha256("\n".join([f"{info.start} {info.nbytes} {_kind(info)}" for info in infos]).encode())
    key = file, _TOGETHER, len(infos), asked.hexdigest()
    query = "SELECT sample, hash FROM hashes WHERE (path, start, nbytes, kind, size, mtime_ns, ctime_ns, inode)"
    found = _execute(f"{query} = (?, ?, ?, ?, ?, ?, ?, ?)", (*key, *stamp))
    if found and found[0][0] == _sample_of_all(infos):
        hashes = found[0][1]
        return [hashes[start : start + 64] for start in range(0, len(hashes), 64)]
    known = _recall_each(infos)
    if None not in known:
        row = (*key, *stamp, _sample_of_all(infos), "".join(known))
        _execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return known


def _sample_of_all(infos: Sequence[TensorInfo]) -> bytes:
    """Return a digest of the samples of tensors."""
    return hashlib.sha256(b"".join(read_samples(infos))).digest()


def _execute(statement: str, values: tuple) -> list[tuple]:
    """Run one statement on the database of hashes; the database is a convenience, so its faults are never fatal.

    A file that is no database of ours is set aside and one begun anew. One that is locked, or on a disk that is full
    or read-only, is left alone: hashes are computed afresh, and of a locked one that is said once.
    """
    file = cache_dir() / _DATABASE
    if time.monotonic() < _paused.get(file, 0.0):
        return []
    for _ in range(2):
        inode = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            inode = file.stat().st_ino if file.exists() else None
            return _run(file, statement, values)
        except OSError:
            return []
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                _paused[file] = time.monotonic() + _PAUSE_SECONDS
                _say_once(f"{file} is locked by another process: contents are hashed again until it is free")
            if code not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
                return []
            _set_aside(file, inode)
    return []


_using = threading.Lock()
_connected: dict[tuple[int, Path, FileStamp], sqlite3.Connection] = {}  # one at most: process, file, and its state


def _run(file: Path, statement: str, values: tuple) -> list[tuple]:
    """Run one statement on this process's connection, a new one where somebody else has touched the file since."""
    with _using:
        connection = _connected.pop((os.getpid(), file, file_stamp(file.stat())), None) if file.exists() else None
        _connected.clear()
        if connection is None:
            connection = sqlite3.connect(file, timeout=_BUSY_SECONDS, check_same_thread=False)
            # A lost database costs a second reading, so no write waits for the disk.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_SCHEMA)
        with connection:
            rows = connection.execute(statement, values).fetchall()
        _connected[os.getpid(), file, file_stamp(file.stat())] = connection
    return rows


_paused: dict[Path, float] = {}  # until when a locked database is left alone
_said: set[str] = set()


def forget_hashes() -> None:
    """Remove the databases of hashes, older and damaged ones too."""
    for file in cache_dir().glob("*hashes-*.sqlite*"):
        with contextlib.suppress(OSError):
            file.unlink()


def _say_once(text: str) -> None:
    """Tell the terminal or the log something, at its first occurrence in this process."""
    if text not in _said:
        _said.add(text)
        logging.getLogger("dgviz").warning(text)


def _set_aside(file: Path, inode: int | None) -> None:
    """Rename a damaged database, unless another process has put a new one in its place meanwhile."""
    aside = file.with_name(f"damaged-{file.name}")
    with contextlib.suppress(OSError):
        if file.stat().st_ino == inode:
            # The journal with it: it would be played back into the new database.
            journal = file.with_name(f"{file.name}-journal")
            if journal.exists():
                journal.replace(aside.with_name(f"{aside.name}-journal"))
            file.replace(aside)
            _say_once(f"{file} was damaged and lies beside as {aside.name}: contents are hashed again")
