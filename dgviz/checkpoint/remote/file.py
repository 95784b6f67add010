"""A file that is not on this machine: how large it is, what tells its contents, and how often it is asked for."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from dgviz.errors import CheckpointError

WAITS = 0.0, 0.5, 2.0, 6.0, 15.0
"""Seconds before each attempt."""


class ContentsChanged(CheckpointError):
    """A remote file holds other contents than when it was opened."""


class Interrupted(Exception):
    """What may pass if it is tried again: a connection that broke, a server that is busy."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that is not on this machine.

    Attributes
    ----------
    address : str
        Where its bytes are asked for.
    size : int
        In bytes.
    stamp : str
        What changes when its contents do: an ETag, or the date of the last change.
    digest : str
        What its contents are known by wherever they lie, ``sha256:...`` or ``git:...``; empty where none is told.
    """

    address: str
    size: int
    stamp: str
    digest: str = ""

    @property
    def identity(self) -> str:
        """What its contents are known by: the digest, or the stamp at this address."""
        return self.digest or f"{self.address} {self.stamp} {self.size}"


def attempts(address: str) -> Iterator[list[str]]:
    """Yield a list for what went wrong, until nothing is in it; raise when it goes wrong too often."""
    problem = ""
    for wait in WAITS:
        time.sleep(wait)
        said: list[str] = []
        yield said
        if not said:
            return
        problem = said[0]
    raise CheckpointError(f"{address} cannot be read ({problem}), {len(WAITS)} times in a row: try again later")


def explain_changed(address: str) -> str:
    """Say that a file's contents are others than when it was opened."""
    return f"{address} has other contents than when it was opened: open the checkpoint again"


def is_offline() -> bool:
    """Return whether other machines are to be left alone, as the Hugging Face libraries are told."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def explain_offline(address: str) -> str:
    """Say that nothing is read from afar."""
    return f"{address} cannot be read offline (HF_HUB_OFFLINE is set): unset it, or download the files"
