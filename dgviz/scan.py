"""Spectra of a pair's weights, taken from the store where they are known and put there where they are not."""

import dataclasses
import time
from typing import Any

import numpy as np

from dgviz.checkpoint import CheckpointPair, PairedTensor, matrix_layout
from dgviz.delta import compute_delta
from dgviz.errors import DgvizError, PairError
from dgviz.repair import energy_kept
from dgviz.spectrum import Decomposition, decompose, resolve_device
from dgviz.store import Spectrum, SpectrumStore, spectrum_key
from dgviz.theory import aspect_ratio, mp_fit_triple
from dgviz.threshold import find_rule


def label(name: str, index: int | None) -> str:
    """Return a tensor's name, with the matrix of a stack in brackets.

    Parameters
    ----------
    name : str
        Tensor name.
    index : int or None
        Which matrix.
    """
    return name if index is None else f"{name}[{index}]"


def read_spectrum(
    paired: PairedTensor, index: int | None, device: str = "auto", store: SpectrumStore | None = None
) -> Spectrum:
    """Return one weight's spectrum from the store, or compute and store it.

    Parameters
    ----------
    paired : PairedTensor
        A tensor that is in both checkpoints.
    index : int or None
        Which matrix of a stack.
    device : str
        Where to compute, if needed.
    store : SpectrumStore, optional
        Default: the user's own.
    """
    started = time.perf_counter()
    store = store or SpectrumStore()
    found = find_spectrum(paired, index, store)
    if found is not None:
        return found
    device = resolve_device(device)
    decomposition = decompose(compute_delta(paired, index, device), device, name=label(paired.name, index))
    return put_spectrum(paired, index, decomposition, store, time.perf_counter() - started)


def find_spectrum(paired: PairedTensor, index: int | None, store: SpectrumStore) -> Spectrum | None:
    """Return one weight's spectrum if it is in the store.

    Parameters
    ----------
    paired : PairedTensor
        A tensor that is in both checkpoints.
    index : int or None
        Which matrix of a stack.
    store : SpectrumStore
        Where to look.
    """
    started = time.perf_counter()
    found = store.get(spectrum_key(paired, index))
    if found is None:
        return None
    seconds = time.perf_counter() - started
    return Spectrum(label(paired.name, index), found.shape, found.s, found.certificate, True, seconds)


def put_spectrum(
    paired: PairedTensor, index: int | None, decomposition: Decomposition, store: SpectrumStore, seconds: float
) -> Spectrum:
    """Store the spectrum of a decomposition and return it; a store that cannot be written costs a warning only.

    Parameters
    ----------
    paired : PairedTensor
        The tensor decomposed.
    index : int or None
        Which matrix of a stack.
    decomposition : Decomposition
        Its factorisation.
    store : SpectrumStore
        Where to put it.
    seconds : float
        What the work took.
    """
    shape = tuple(decomposition.shape)
    s = np.asarray(decomposition.s, dtype=np.float64)
    certificate = dataclasses.asdict(decomposition.certificate)
    warnings: tuple[str, ...] = ()
    try:
        store.put(spectrum_key(paired, index), s, shape, certificate)
    except DgvizError as error:
        warnings = (str(error),)
    return Spectrum(label(paired.name, index), shape, s, certificate, False, seconds, warnings)


def spectrum_report(
    pair: CheckpointPair, name: str, rule: str, params: dict[str, Any], device: str = "auto"
) -> dict[str, Any]:
    """Return one weight's spectrum and threshold as plain values; lists, one item per matrix, for a stack.

    Parameters
    ----------
    pair : CheckpointPair
        The checkpoints.
    name : str
        A tensor whose fate is repair.
    rule : str
        Threshold rule.
    params : dict
        Its parameters.
    device : str
        Where to compute.

    Raises
    ------
    PairError
        If there is no such tensor or it has no update with a spectrum.
    """
    paired = pair[name]
    if paired.action != "repair":
        raise PairError(f"{name!r} has no spectrum to show: {paired.reason}")
    layout = matrix_layout(name, paired.tuned.shape)
    indices = [None] if layout.stack is None else range(layout.stack)
    rows = [_row(read_spectrum(paired, index, device), rule, params) for index in indices]
    common = {
        "name": name,
        "shape": list(paired.tuned.shape),
        "beta": aspect_ratio((layout.rows, layout.cols)),
        "rule": rule,
        "params": params,
    }
    if layout.stack is None:
        return common | rows[0]
    merged = {key: [row[key] for row in rows] for key in rows[0] if key not in ("mp_fit", "warnings")}
    fits = {key: [row["mp_fit"][key] for row in rows] for key in ("tuned", "repaired", "discarded")}
    warnings = list(dict.fromkeys(warning for row in rows for warning in row["warnings"]))
    return common | merged | {"mp_fit": fits, "warnings": warnings}


def _row(spectrum: Spectrum, rule: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one matrix."""
    threshold = find_rule(rule).apply(spectrum.s, spectrum.shape, **params)
    return {
        "sigma": threshold.sigma,
        "tau": threshold.tau,
        "edge": threshold.edge,
        "rank": threshold.rank,
        "energy_kept": energy_kept(spectrum.s, threshold.rank),
        "mp_fit": mp_fit_triple(spectrum.s, threshold.rank, threshold.sigma, spectrum.shape),
        "route": spectrum.certificate["route"],
        "stored": spectrum.stored,
        "seconds": spectrum.seconds,
        "warnings": [*threshold.warnings, *spectrum.warnings],
        "singular_values": spectrum.s.tolist(),
    }
