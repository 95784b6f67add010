"""Spectra on disk, under a key made of both tensors' contents: a second look costs no SVD.

An entry is one small file: all singular values, how they were obtained, and a summary of the delta's entries where
somebody computed one. The leading triplets of a weight may lie beside it, in a file of their own.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from dgviz.checkpoint import cache_dir
from dgviz.errors import DgvizError
from dgviz.files import replacing
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.bound import note_growth, note_use, note_uses
from dgviz.spectra.pack import FORMAT, Stamp, pack_spectra, read_arrays, unpack_spectra, write_arrays

ENGINE_VERSION = "3"
"""Part of every key. Raise it when `decompose` gives other numbers, or when the stored format or the
summary changes: entries of an older version are not found, and computed again."""

FEWEST = 64
"""Entries from which on what is made of all of them is kept."""

_KEY = re.compile("[0-9a-f]{64}")


def spectrum_key(base: str, tuned: str) -> str:
    """Return the key of a delta's spectrum from the hashes of both sides' contents.

    Names and paths are no part of it, so a copied or renamed checkpoint finds its spectra again.
    """
    text = f'["{ENGINE_VERSION}", "{base}", "{tuned}"]'  # as JSON has it, which takes several times as long
    return hashlib.sha256(text.encode()).hexdigest()


class SpectrumStore:
    """Stored spectra, one file each; many processes may read and write at once. How many: `dgviz.spectra.bound`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_dir() / "spectra" if root is None else Path(root)

    def get(self, key: str) -> Spectrum | None:
        """Return what is stored under a key, or None; a damaged entry counts as none."""
        file = self._file(key)
        try:
            with safe_open(file, framework="numpy") as stored:
                about = stored.metadata() or {}
                s = stored.get_tensor("s")
            shape = tuple(json.loads(about["shape"]))
            described = _described(about)
            certificate, summary = json.loads(about["certificate"]), json.loads(about.get("summary", "{}"))
            spectrum = Spectrum(_checked(s, shape), shape, certificate, summary, stored=True)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
        if about.get("digest") != _digest(key, described, s):
            return None
        note_use(file)
        return spectrum

    def get_many(self, keys: Iterable[str]) -> tuple[dict[str, Spectrum], str]:
        """Return what is stored under keys, and a digest that changes when one of these entries does.

        Many entries are kept in one file as well (`dgviz.spectra.pack`): the next look need not open each of them.
        """
        wanted = sorted(set(keys))
        stats = self._look(wanted)
        stamps = {key: _stamp(stat) for key, stat in stats.items()}
        pack = "".join([FORMAT, *wanted])
        packed = self.get_arrays(pack) if len(stamps) >= FEWEST else None
        found = {} if packed is None else unpack_spectra(packed, stamps)
        note_uses(stats if len(found) == len(stats) else {key: stats[key] for key in found}, self._file)
        new = {key: spectrum for key in stamps if key not in found and (spectrum := self.get(key)) is not None}
        found |= new
        if len(new) > len(found) // 20:
            self.put_arrays(pack, pack_spectra(found, stamps), len(found))
        return found, _told({key: stamps[key] for key in wanted if key in found})

    def digest(self, keys: Iterable[str]) -> str:
        """Return the digest that `get_many` returns, reading nothing; an empty one where an entry is not there."""
        wanted = sorted(set(keys))
        stamps = {key: _stamp(stat) for key, stat in self._look(wanted).items()}
        return _told(stamps) if len(stamps) == len(wanted) else ""

    def _look(self, keys: Sequence[str]) -> dict[str, os.stat_result]:
        """Return what the system says of the entries that are there."""
        stats, root = {}, str(self.root)
        if not all(map(_KEY.fullmatch, keys)):
            raise ValueError("what is looked for are keys of spectrum_key")
        for key in keys:
            try:  # noqa: SIM105 - of many keys, suppressing costs as much as looking, and so do paths
                stats[key] = os.stat(_file_name(root, key))  # noqa: PTH116
            except OSError:
                pass
        return stats

    def get_arrays(self, question: str) -> dict[str, NDArray] | None:
        """Return what was kept of many matrices under a question that names their entries."""
        file = self._pack_file(question)
        found = read_arrays(file)
        if found is not None:
            note_use(file)
        return found

    def put_arrays(self, question: str, arrays: Mapping[str, NDArray], count: int) -> None:
        """Keep what was made of so many entries, where they are many and there is room: it can be made again."""
        if count >= FEWEST:
            with contextlib.suppress(DgvizError), self._replacing(self._pack_file(question)) as file:
                write_arrays(file, arrays)

    def put(
        self,
        key: str,
        s: ArrayLike,
        shape: Sequence[int],
        certificate: Mapping[str, Any],
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a spectrum; an entry that is there is replaced in one step."""
        values = _checked(np.ascontiguousarray(s, dtype=np.float64), tuple(shape))
        about = {"shape": json.dumps([int(length) for length in shape]), "certificate": json.dumps(dict(certificate))}
        if summary:
            about["summary"] = json.dumps(dict(summary))
        about["digest"] = _digest(key, _described(about), values)
        with self._replacing(self._file(key)) as file:
            file.write_bytes(save({"s": values}, metadata=about))

    def put_factors(self, key: str, left: NDArray[np.floating], right: NDArray[np.floating]) -> None:
        """Store the leading triplets of a delta as two factors whose product is its best approximation."""
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0] or left.dtype != right.dtype:
            raise ValueError(
                f"factors of shape {left.shape} ({left.dtype}) and {right.shape} ({right.dtype}) have no product"
            )
        left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
        about = {"digest": _digest(key, f"{left.shape}{right.shape}", left, right)}
        with self._replacing(self._factors_file(key)) as file:
            save_file({"left": left, "right": right}, file, metadata=about)

    def get_factors(self, key: str, rank: int) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
        """Return the `rank` strongest triplets, (m, rank) and (rank, n), or None where fewer or none are stored."""
        file = self._factors_file(key)
        try:
            with safe_open(file, framework="numpy") as stored:
                if stored.get_slice("right").get_shape()[0] < rank:
                    return None
                about = stored.metadata() or {}
                left, right = stored.get_tensor("left"), stored.get_tensor("right")
            sound = about.get("digest") == _digest(key, f"{left.shape}{right.shape}", left, right)
        except (OSError, SafetensorError, IndexError, KeyError, ValueError, TypeError):
            return None
        if not sound:
            return None
        note_use(file)
        return left[:, :rank], right[:rank]

    @contextlib.contextmanager
    def _replacing(self, file: Path) -> Iterator[Path]:
        """Give the path of a fresh file that takes `file`'s place in one step once it has been written."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file, durable=False) as fresh:
                yield fresh
            note_growth(self.root, file.stat().st_size)
        except (OSError, SafetensorError) as error:
            raise DgvizError(
                f"the spectrum cannot be stored in {self.root} ({getattr(error, 'strerror', None) or error}): "
                "free some space, or set DGVIZ_CACHE_DIR to a writable directory"
            ) from error

    def size(self) -> int:
        """Return the bytes used by all entries."""
        total = 0
        for file in self.root.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # replaced or cleared by another process meanwhile
                total += file.stat().st_size
        return total

    def clear(self) -> None:
        """Remove all entries, and what writers that died an hour ago or more left behind."""
        abandoned = time.time() - 3600
        for file in self.root.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                if file.suffix == ".safetensors" or file.stat().st_mtime < abandoned:
                    file.unlink()

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of spectrum_key")
        return Path(_file_name(str(self.root), key))

    def _pack_file(self, question: str) -> Path:
        return self.root / "packs" / f"{hashlib.sha256(question.encode()).hexdigest()}.safetensors"

    def _factors_file(self, key: str) -> Path:
        return self._file(key).with_suffix(".factors.safetensors")


def _file_name(root: str, key: str) -> str:
    """Return where the entry of a key lies."""
    return f"{root}/{key[:2]}/{key}.safetensors"


def _stamp(stat: os.stat_result) -> Stamp:
    """Return which version of an entry this is."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _told(stamps: Mapping[str, Stamp]) -> str:
    """Return a digest of entries and their versions."""
    return hashlib.sha256(orjson.dumps(list(stamps.items()))).hexdigest()


def _checked(s: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return `s` where it can be the spectrum of a matrix of this shape."""
    if len(shape) != 2 or s.dtype != np.float64 or s.shape != (min(shape),):
        raise ValueError(f"{s.dtype} of shape {s.shape} is not the spectrum of a matrix of shape {shape}")
    if not np.isfinite(s).all() or (s < 0).any() or (np.diff(s) > 0).any():
        raise ValueError("singular values must be finite, non-negative and descending")
    return s


def _described(about: Mapping[str, str]) -> str:
    """Return the text of an entry that its checksum covers; no line of it can hold a line break, being JSON."""
    return "\n".join(about[name] for name in ("shape", "certificate", "summary") if name in about)


def _digest(key: str, described: str, *arrays: NDArray[np.floating]) -> str:
    """Return a checksum over everything in an entry, so that damage of any kind is seen."""
    digest = hashlib.sha256(f"{key}\n{described}\n".encode())
    for array in arrays:
        digest.update(array)
    return digest.hexdigest()
