"""Texts that every Python brings along, as bytes: its library's source code, and the pages of its help.

The latter also with every letter moved by 13 places, a language that no other text teaches. All of them change with
the version of Python, so their hash is recorded beside whatever was measured on them.
"""

import codecs
import functools
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dgviz.errors import CheckpointError

CODE, PROSE, CIPHER = "code", "prose", "cipher"
_BLOCK = 16_384  # bytes; the last eighth of every block is held out


@dataclass(frozen=True)
class Text:
    """Bytes to train on and bytes held out, of one kind of text.

    Attributes
    ----------
    train, held_out : (n,) uint8 arrays
        Blocks joined in order.
    sha256 : str
        Of all of it.
    """

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    sha256: str

    def sequences(self, count: int, length: int) -> NDArray[np.int64]:
        """Return held-out pieces at equal distances."""
        starts = np.linspace(0, self.held_out.size - length, count).astype(np.int64)
        return self.held_out[starts[:, None] + np.arange(length)].astype(np.int64)


@functools.cache
def read_text(kind: str) -> Text:
    """Return the text of a kind, read once."""
    data = _code() if kind == CODE else _prose()
    if kind == CIPHER:
        data = codecs.encode(data.decode(), "rot13").encode()
    blocks = np.frombuffer(data, dtype=np.uint8)[: len(data) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    if len(blocks) < 8:
        raise CheckpointError(
            f"this Python has {len(data)} bytes of {kind}, too few to train on: use one that has its library's source"
        )
    cut = _BLOCK * 7 // 8
    return Text(blocks[:, :cut].reshape(-1), blocks[:, cut:].reshape(-1), hashlib.sha256(data).hexdigest())


def _code() -> bytes:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return b"\n".join(path.read_bytes() for path in files)


def _prose() -> bytes:
    from pydoc_data.topics import topics

    paragraphs = (paragraph for name in sorted(topics) for paragraph in topics[name].split("\n\n"))
    return "\n\n".join(dict.fromkeys(paragraphs)).encode()  # pages quote each other at length
