"""The stored spectra of many matrices in one file: pages over a whole model read that, and not an entry for each.

A pack repeats entries of the store and is never more than a faster way to them. It tells which version of every entry
it holds, by inode, size and time of modification; an entry that has changed since, or is gone, is not read from it.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dgviz.rmt.spectrum import Spectrum

FORMAT = "2"
"""Part of what a pack is found by. Raise it when `pack_spectra` writes other arrays, or other values into them."""
Stamp = tuple[int, int, int]
"""Inode, size and time of modification of an entry."""


def pack_spectra(spectra: Mapping[str, Spectrum], stamps: Mapping[str, Stamp]) -> dict[str, NDArray]:
    """Return spectra by their keys as arrays, each with the stamp that its entry had before it was read."""
    about = {
        "keys": list(spectra),
        "certificates": [spectrum.certificate for spectrum in spectra.values()],
        "summaries": [spectrum.summary for spectrum in spectra.values()],
        "energies": [spectrum.energy for spectrum in spectra.values()],
    }
    return {
        "values": np.concatenate([spectrum.s for spectrum in spectra.values()]),
        "shapes": np.array([spectrum.shape for spectrum in spectra.values()], np.int64),
        "stamps": np.array([stamps[key] for key in spectra], np.uint64),
        "about": text_array(about),
    }


def unpack_spectra(arrays: Mapping[str, NDArray], stamps: Mapping[str, Stamp]) -> dict[str, Spectrum]:
    """Return the packed spectra whose entries have these stamps now, by key."""
    about = read_text(arrays["about"])
    shapes, known = (list(map(tuple, arrays[name].tolist())) for name in ("shapes", "stamps"))
    ends = np.cumsum([min(shape) for shape in shapes]).tolist()
    described = (about[name] for name in ("keys", "certificates", "summaries", "energies"))
    found = {}
    for stamp, end, shape, key, certificate, summary, energy in zip(known, ends, shapes, *described, strict=True):
        if stamps.get(key) == stamp:
            s = arrays["values"][end - min(shape) : end]
            found[key] = Spectrum(s, shape, certificate, summary, stored=True)
            vars(found[key])["energy"] = energy  # where the property keeps it
    return found


def text_array(value: Any) -> NDArray[np.uint8]:
    """Return plain values as an array of bytes, which are JSON."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def read_text(array: NDArray[np.uint8]) -> Any:
    """Return the plain values of a `text_array`: orjson takes a third of the time, and knows no NaN and infinity."""
    try:
        return orjson.loads(array.data)
    except orjson.JSONDecodeError:
        return json.loads(array.tobytes())


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
