"""The stored spectra of many matrices in one file: pages over a whole model read that, and not an entry for each.

A pack repeats entries of the store and is never more than a faster way to them. It tells which version of every entry
it holds, by inode, size and time of modification; an entry that has changed since, or is gone, is not read from it.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dgviz.rmt.spectrum import Spectrum

FORMAT = "3"
"""Part of what a pack is found by. Raise it when `pack_spectra` writes other arrays, or other values into them."""
Stamp = tuple[int, int, int]
"""Inode, size and time of modification of an entry."""


class PackedSpectrum(Spectrum):
    """A spectrum from a pack: what is said of it beside its numbers is read when it is first asked for.

    Of a whole model nobody asks for most of it, and reading it all would take longer than everything else.
    """

    @cached_property
    def certificate(self) -> dict[str, Any]:  # noqa: D102 - that of `Spectrum`
        return _parse(self._texts[0])

    @cached_property
    def summary(self) -> dict[str, Any]:  # noqa: D102 - that of `Spectrum`
        return _parse(self._texts[1])


def pack_spectra(spectra: Mapping[str, Spectrum], stamps: Mapping[str, Stamp]) -> dict[str, NDArray]:
    """Return spectra by their keys as arrays, each with the stamp that its entry had before it was read."""
    own = spectra.values()
    texts = [json.dumps(text).encode() for spectrum in own for text in (spectrum.certificate, spectrum.summary)]
    return {
        "keys": np.frombuffer("".join(spectra).encode(), np.uint8),
        "values": np.concatenate([spectrum.s for spectrum in own]),
        "shapes": np.array([(*spectrum.shape, *spectrum.nonzero_shape) for spectrum in own], np.int64),
        "energies": np.array([spectrum.energy for spectrum in own]),
        "stamps": np.array([stamps[key] for key in spectra], np.uint64),
        "texts": np.frombuffer(b"".join(texts), np.uint8),
        "lengths": np.array([len(text) for text in texts], np.int64),
    }


def unpack_spectra(arrays: Mapping[str, NDArray], stamps: Mapping[str, Stamp]) -> dict[str, Spectrum]:
    """Return the packed spectra whose entries have these stamps now, by key."""
    keys, texts, values = arrays["keys"].tobytes().decode(), arrays["texts"].tobytes(), arrays["values"]
    ends = np.cumsum(arrays["shapes"][:, :2].min(axis=1)).tolist()
    said = [0, *np.cumsum(arrays["lengths"]).tolist()]
    known, shapes, nonzero = (
        list(map(tuple, part.tolist()))
        for part in (arrays["stamps"], arrays["shapes"][:, :2], arrays["shapes"][:, 2:])
    )
    columns = zip([0, *ends], ends, known, shapes, nonzero, arrays["energies"].tolist(), strict=False)
    found = {}
    for number, (begin, end, stamp, shape, nonzero_shape, energy) in enumerate(columns):
        key = keys[64 * number : 64 * (number + 1)]
        if stamps.get(key) == stamp:
            start, middle, stop = said[2 * number : 2 * number + 3]
            found[key] = spectrum = object.__new__(PackedSpectrum)
            vars(spectrum).update(  # what is not here is read or computed when it is asked for
                s=values[begin:end],
                shape=shape,
                nonzero_shape=nonzero_shape,
                energy=energy,
                stored=True,
                _texts=(texts[start:middle], texts[middle:stop]),
            )
    return found


def _parse(text: bytes) -> Any:
    """Return what a text says: orjson takes a third of the time, and knows no NaN and infinity."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def text_array(value: Any) -> NDArray[np.uint8]:
    """Return plain values as an array of bytes, which are JSON."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def read_text(array: NDArray[np.uint8]) -> Any:
    """Return the plain values of a `text_array`."""
    return _parse(array.tobytes())


def write_arrays(file: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write arrays with a checksum over all of them."""
    save_file(dict(arrays), file, metadata={"digest": _digest(arrays)})


def read_arrays(file: Path) -> dict[str, NDArray] | None:
    """Return the arrays in a file, or None where there is none, or a damaged one, which is said."""
    try:
        with safe_open(file, framework="numpy") as stored:
            digest = (stored.metadata() or {}).get("digest")
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        digest, arrays, why = "", {}, str(error)
    else:
        why = "its checksum is another"
    if digest == _digest(arrays):
        return arrays
    logging.getLogger("dgviz").warning(f"{file} is damaged ({why}): what it holds is read or computed again")
    return None


def _digest(arrays: Mapping[str, NDArray]) -> str:
    """Return a checksum over arrays and their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()
