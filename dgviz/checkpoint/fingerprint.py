"""The hash of a tensor's contents, computed once per file version and remembered on disk."""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import platformdirs

from dgviz.checkpoint.read import iter_chunks
from dgviz.checkpoint.types import DerivedTensor, TensorInfo
from dgviz.errors import CheckpointError

_SCHEMA = """CREATE TABLE IF NOT EXISTS hashes (
    path TEXT, start INTEGER, nbytes INTEGER, kind TEXT, size INTEGER, mtime_ns INTEGER, inode INTEGER, hash TEXT,
    PRIMARY KEY (path, start, nbytes, kind))"""

# A file changed twice within one tick of its file system's clock keeps its time stamp: hashes of files touched
# this recently are not remembered. Two seconds is the coarsest clock in use (FAT).
_SETTLED_NS = 2_000_000_000


def cache_dir() -> Path:
    """Return the directory of everything dgviz remembers: ``$DGVIZ_CACHE_DIR``, else the user's cache directory."""
    return Path(os.environ.get("DGVIZ_CACHE_DIR") or platformdirs.user_cache_dir("dgviz")).expanduser()


def content_hash(info: TensorInfo) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes, as hexadecimal.

    SHA-256 because common processors have instructions for it, and then it is twice as fast as BLAKE2b. The hash is
    remembered in `cache_dir` under the file's path, size, modification time and inode: a second call reads no data.
    A derived tensor is hashed by its recipe and the hashes of its parts: nothing is computed.

    Raises
    ------
    CheckpointError
        If the file is gone, unreadable, shorter than when it was opened, or changes while it is read.
    """
    if isinstance(info, DerivedTensor):
        return _derived_hash(info, map(content_hash, info.parts))
    before = _stat(info.file)
    known = _recall([info])
    if known:
        return known[info]
    digest = hashlib.sha256(_kind(info).encode())
    for chunk in iter_chunks(info):
        digest.update(chunk)
    if _stat(info.file) != before:
        raise CheckpointError(f"{info.file} changed while tensor {info.name!r} was read: wait until it is complete")
    if time.time_ns() - before[1] > _SETTLED_NS:
        statement = "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        _execute(statement, (str(info.file), *_key(info), *before, digest.hexdigest()))
    return digest.hexdigest()


def is_hashed(info: TensorInfo) -> bool:
    """Return whether `content_hash` remembers this tensor, so that it reads no data.

    Raises
    ------
    CheckpointError
        If the file is gone.
    """
    return info in known_hashes([info])


def known_hashes(infos: Iterable[TensorInfo]) -> dict[TensorInfo, str]:
    """Return `content_hash` of those tensors for which it is remembered, reading no data: one look-up per file.

    Parameters
    ----------
    infos : iterable of TensorInfo
        Any number of tensors, derived ones too.

    Raises
    ------
    CheckpointError
        If a file is gone.
    """
    wanted = dict.fromkeys(infos)
    parts = {info: known_hashes(info.parts) for info in wanted if isinstance(info, DerivedTensor)}
    found = {
        info: _derived_hash(info, [own[part] for part in info.parts])
        for info, own in parts.items()
        if len(own) == len(set(info.parts))
    }
    by_file: dict[Path, list[TensorInfo]] = {}
    for info in wanted:
        if info not in parts:
            by_file.setdefault(info.file, []).append(info)
    for own in by_file.values():
        found |= _recall(own)
    return found


def _derived_hash(info: DerivedTensor, parts: Iterable[str]) -> str:
    """Return the hash of a derived tensor from those of its parts."""
    return hashlib.sha256("|".join([info.recipe, _kind(info), *parts]).encode()).hexdigest()


def _kind(info: TensorInfo) -> str:
    return f"{info.dtype}:{','.join(map(str, info.shape))}:"


def _stat(file: Path) -> tuple[int, int, int]:
    """Return size, modification time and inode of a file."""
    try:
        stat = file.stat()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _key(info: TensorInfo) -> tuple[int, int, str]:
    return info.start, info.nbytes, _kind(info)


def _recall(infos: list[TensorInfo]) -> dict[TensorInfo, str]:
    """Return the hashes that are remembered of tensors of one file, as the file is now."""
    file, values = infos[0].file, ()
    query = "SELECT start, nbytes, kind, hash FROM hashes WHERE (path, size, mtime_ns, inode) = (?, ?, ?, ?)"
    if len(infos) == 1:
        query, values = f"{query} AND (start, nbytes, kind) = (?, ?, ?)", _key(infos[0])
    rows = {tuple(key): value for *key, value in _execute(query, (str(file), *_stat(file), *values))}
    return {info: rows[_key(info)] for info in infos if _key(info) in rows}


def _execute(statement: str, values: tuple) -> list[tuple]:
    """Run one statement on the database of hashes; the database is a convenience, so its faults are never fatal.

    A file that is no database is removed and begun again. A database that is locked, or on a disk that is full or
    read-only, is left alone: the hash is computed afresh each time.
    """
    file = cache_dir() / "hashes-1.sqlite"  # the number is the schema's
    for _ in range(2):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(file, timeout=5)) as connection, connection:
                # A lost database costs a second reading, so no write waits for the disk.
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(_SCHEMA)
                return connection.execute(statement, values).fetchall()
        except (sqlite3.OperationalError, OSError):
            return []
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
                file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
    return []
