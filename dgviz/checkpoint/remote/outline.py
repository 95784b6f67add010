"""A remote checkpoint in its full size on this machine, with nothing where its numbers would be."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dgviz.checkpoint.remote.record import is_remote, remote_file


@contextmanager
def outline(folder: Path) -> Iterator[Path]:
    """Give a folder for loaders that look at names and shapes only: of a mirror one with files of the full size.

    Their holes take no room on the disk. Any other folder is given as it is.
    """
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dgviz-outline-") as name:
        for file in (file for file in folder.iterdir() if file.is_file()):
            remote, copy = remote_file(file), Path(name, file.name)
            copy.write_bytes(file.read_bytes())
            if remote is not None:
                with copy.open("r+b") as stream:
                    stream.truncate(remote.size)
        yield Path(name)
