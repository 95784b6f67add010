"""What a mirror is a mirror of: which of its files are remote, found by the mirror's path alone.

A mirror is made once for one state of the files it stands for, and never changed: whoever has opened it reads those
contents or none. Only folders under dgviz's own cache count, for a record says what is asked of other machines.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from dgviz.checkpoint.remote.file import RemoteFile
from dgviz.errors import CheckpointError
from dgviz.files import cache_dir, read_record, write_json
from dgviz.opening import refuse_address


def mirrors() -> Path:
    """Return the folder of all mirrors, resolved."""
    return _mirrors(os.environ.get("DGVIZ_CACHE_DIR"))


@lru_cache(maxsize=16)
def _mirrors(setting: str | None) -> Path:
    return Path(os.path.realpath(cache_dir() / "remote"))


def is_remote(path: Path) -> bool:
    """Return whether a path lies in a mirror; asked for every tensor, so by its name alone."""
    return str(path).startswith(f"{mirrors()}/")


def remote_file(file: Path) -> RemoteFile | None:
    """Return the remote file that one in a mirror stands for; None for every other file."""
    if not is_remote(file):
        return None
    return _record(file.parent)[1].get(file.name)


def address_of(folder: Path) -> str | None:
    """Return the address that a folder is the mirror of; None for every other folder."""
    return _record(folder)[0] if is_remote(folder) and is_mirror(folder) else None


def write_mirror_record(folder: Path, address: str, files: dict[str, RemoteFile]) -> None:
    """Write what a mirror stands for, last of all: one without it is not complete."""
    rows = {name: [file.address, file.size, file.stamp, file.digest] for name, file in files.items()}
    write_json(_place(folder), {"address": address, "files": rows}, durable=False)


def ref_of(address: str) -> Path:
    """Return the file that tells which mirror of a folder's address is the last."""
    return mirrors() / "refs" / f"{short_hash(address)}.json"


def forget_mirror(file: Path) -> None:
    """Have the address of a mirror's file asked again when it is opened next."""
    ref_of(_record(file.parent)[0]).unlink(missing_ok=True)


def short_hash(text: str) -> str:
    """Return what stands for a text in names of folders."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def is_mirror(folder: Path) -> bool:
    """Return whether a folder is a complete mirror."""
    return _place(folder).is_file()


def mirrors_opened(file: Path) -> Path | None:
    """Return the folder of mirrors where a file lies in one whose address may be opened; None elsewhere.

    Raises
    ------
    AccessError
        If its address may not be opened any more.
    """
    if not is_remote(file):
        return None
    refuse_address(_record(file.parent)[0])
    return mirrors()


@lru_cache(maxsize=256)
def _record(folder: Path) -> tuple[str, dict[str, RemoteFile]]:
    """Return the address and the remote files of a mirror."""
    found: dict[str, Any] | None = read_record(_place(folder), "address", "files")
    if found is None:
        raise CheckpointError(f"{folder} is no complete mirror of a remote checkpoint: open its address again")
    return found["address"], {name: RemoteFile(*row) for name, row in found["files"].items()}


def _place(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.remote.json")
