"""Files that somebody names, opened once: what was opened is judged, not its name.

A name may lead anywhere, and to something else a moment later. So a file is opened first, without waiting for a pipe,
and then asked what it is and where it lies, all links followed; whoever reads it reads that one. Where
``DGVIZ_ROOTS`` names folders, nothing outside them is read, but for what comes with dgviz; of addresses on other
machines, then, only those below one in ``DGVIZ_REMOTE_ROOTS``.
"""

import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO

from dgviz.errors import AccessError

ROOTS = "DGVIZ_ROOTS"
REMOTE_ROOTS = "DGVIZ_REMOTE_ROOTS"
_OWN = os.path.realpath(Path(__file__).parent)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def named_roots() -> tuple[Path, ...]:
    """Return the folders that files are confined to, resolved; none where ``DGVIZ_ROOTS`` names none."""
    given = os.environ.get(ROOTS, "").split(os.pathsep)
    return tuple(Path(os.path.realpath(Path(root).expanduser())) for root in given if root.strip())


def lies_in(path: str, folder: str | Path) -> bool:
    """Return whether a path is a folder or lies in it, both resolved; quicker than pathlib is, for every reading."""
    return path == str(folder) or path.startswith(f"{str(folder).rstrip('/')}/")


def comes_with_dgviz(path: str) -> bool:
    """Return whether a path, resolved, is one of the package itself, such as the demo's checkpoints."""
    return lies_in(path, _OWN)


def named_addresses() -> tuple[str, ...] | None:
    """Return the addresses that ``DGVIZ_REMOTE_ROOTS`` names, below which others may be opened; None for all.

    Where it is not set but ``DGVIZ_ROOTS`` is, there are none.
    """
    given = os.environ.get(REMOTE_ROOTS)
    if given is not None:
        return tuple(given.split())
    return () if named_roots() else None


def refuse_address(address: str) -> None:
    """Raise where an address on another machine may not be opened.

    Raises
    ------
    AccessError
        If it lies below none in ``DGVIZ_REMOTE_ROOTS``.
    """
    roots = named_addresses()
    if roots is None:
        return
    for root in (root.rstrip("/") for root in roots):
        if address == root or address.startswith((f"{root}/", *([f"{root}@"] if root.startswith("hf:") else []))):
            return
    allowed = f"this server may open only {', '.join(roots)}" if roots else "this server may open none"
    raise AccessError(
        f"{address} is not opened: of addresses on other machines {allowed}; add it to {REMOTE_ROOTS} (separated by "
        "blanks) where the server is started"
    )


def open_named(path: Path, also: Path | None = None) -> tuple[BinaryIO, str]:
    """Open a file that somebody names, to be read.

    Parameters
    ----------
    path : Path
        As it was given.
    also : Path, optional
        A folder that may be opened beside those in ``DGVIZ_ROOTS``.

    Returns
    -------
    BinaryIO
        The file, to be closed.
    str
        Where it lies, every link followed.

    Raises
    ------
    OSError
        If it cannot be opened, or is a pipe, a device or anything else but a regular file.
    AccessError
        If it lies outside the folders in ``DGVIZ_ROOTS``.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a null byte, a lone surrogate
        raise OSError(0, "no file is called so") from error
    _refuse_irregular(found)  # before it is opened as well: to open a device may do something
    handle = os.open(path, _FLAGS)
    try:
        _refuse_irregular(os.fstat(handle))
        real, roots = _place(handle), named_roots()
        opened = (*roots, *([also] if also else []))
        if roots and not comes_with_dgviz(real) and not any(lies_in(real, root) for root in opened):
            raise AccessError(refusal(path, roots))
        return os.fdopen(handle, "rb"), real
    except BaseException:
        os.close(handle)
        raise


def read_named(path: Path, most: int) -> bytes:
    """Return what a file that somebody names holds, up to a number of bytes; see `open_named`."""
    with open_named(path)[0] as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(0, f"it is larger than {most:,} bytes, which no such file is")
    return content


def refusal(path: Path, roots: tuple[Path, ...]) -> str:
    """Return why a path outside the folders that may be opened is not."""
    return (
        f"{path} is not opened: it lies outside the folders that this server may open "
        f"({', '.join(map(str, roots))}); give a path inside them, or add its folder to {ROOTS} where the server is "
        "started"
    )


def _refuse_irregular(found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(0, f"it is {names.get(kind, 'a device')} and no regular file")


def _place(handle: int) -> str:
    """Return where the system says that an open file lies."""
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return os.fsdecode(fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
