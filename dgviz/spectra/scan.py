"""The spectrum of one weight: taken from the store where it is known, computed and put there where it is not.

`scan_matrix` is the same for a whole-model scan, which runs it in worker processes: it gathers in one pass everything
that needs the delta itself, so that no later question reads the model again.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgviz.checkpoint import CheckpointPair, PairedTensor, content_hash, matrix_layout, select_matrix
from dgviz.checkpoint.layout import label
from dgviz.errors import DgvizError, PairError, SpectrumError
from dgviz.rmt.assess import apply_rule, matrix_row, needs_delta, stack_rows, threshold_key
from dgviz.rmt.law import aspect_ratio
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.entries import summarise
from dgviz.spectra.store import SpectrumStore, spectrum_key
from dgviz.spectra.svd.decompose import Decomposition, decompose, decompose_stack, resolve_device

# Kept factors are stored up to a fifth of the weight's own bytes: for a square bfloat16 matrix that is p / 20
# directions, more than most updates keep, and a scanned model adds a fifth of its size to the cache at most. Beyond
# 64 MiB reading them back costs a good part of what computing them does.
_FACTOR_SHARE, _FACTOR_BYTES = 0.2, 64 * 2**20


def read_spectrum(
    paired: PairedTensor, index: int | None, device: str = "auto", store: SpectrumStore | None = None
) -> Spectrum:
    """Return one weight's spectrum from the store, or compute and store it."""
    started = time.perf_counter()
    store = store or SpectrumStore()
    found = find_spectrum(paired, index, store)
    if found is not None:
        return found
    device = resolve_device(device)
    delta = compute_delta(paired, index, device)
    decomposition = decompose(delta, device, name=label(paired.name, index))
    summary = summarise(paired, index, delta, decomposition)
    return put_spectrum(paired, index, decomposition, store, time.perf_counter() - started, summary)


def find_spectrum(paired: PairedTensor, index: int | None, store: SpectrumStore) -> Spectrum | None:
    """Return one weight's spectrum if it is in the store."""
    started = time.perf_counter()
    found = store.get(spectrum_key(paired, index))
    if found is None:
        return None
    seconds = time.perf_counter() - started
    name = label(paired.name, index)
    return Spectrum(name, found.shape, found.s, found.certificate, True, seconds, summary=found.summary)


def put_spectrum(
    paired: PairedTensor,
    index: int | None,
    decomposition: Decomposition,
    store: SpectrumStore,
    seconds: float,
    summary: dict[str, Any],
) -> Spectrum:
    """Store the spectrum of a decomposition and return it; a store that cannot be written costs a warning only."""
    shape = tuple(decomposition.shape)
    s = np.asarray(decomposition.s, dtype=np.float64)
    certificate = dataclasses.asdict(decomposition.certificate)
    warnings: tuple[str, ...] = ()
    try:
        store.put(spectrum_key(paired, index), s, shape, certificate, summary)
    except DgvizError as error:
        warnings = (str(error),)
    return Spectrum(label(paired.name, index), shape, s, certificate, False, seconds, warnings, summary)


def list_places(device: str) -> list[tuple[str, int | None]]:
    """Return the devices a scan runs on, each with its free bytes; None for the CPU, whose memory all share."""
    places = [resolve_device(device)]
    if device == "auto" and places != ["cpu"]:
        places = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [(place, None if place == "cpu" else torch.cuda.mem_get_info(place)[0]) for place in places]


def scan_matrix(
    paired: PairedTensor,
    index: int | None,
    device: str,
    threads: int,
    root: Path,
    rule: str,
    params: dict[str, Any],
    ready: tuple[torch.Tensor, Decomposition] | None = None,
) -> dict[str, Any]:
    """Return the figures of one matrix, and see to it that the store holds all there is to know about it.

    Where the spectrum is stored but the tau of a rule that needs the delta is not, only that is computed. Kept
    factors are stored with the spectrum.
    """
    torch.set_num_threads(threads)
    started = time.perf_counter()
    store = SpectrumStore(root)
    found = find_spectrum(paired, index, store)
    if found is not None and not needs_delta(found, rule, params):
        return matrix_row(found, rule, params)
    delta, decomposition = ready or (compute_delta(paired, index, device), None)
    if found is not None:
        found = with_threshold(paired, index, found, delta, store, rule, params)
        return matrix_row(dataclasses.replace(found, seconds=time.perf_counter() - started), rule, params)
    try:
        decomposition = decomposition or decompose(delta, device, name=label(paired.name, index))
    except SpectrumError:
        base, tuned, _ = select_matrix(paired, index)
        if content_hash(base) != content_hash(tuned):
            raise
        delta = torch.zeros_like(delta)  # equal infinities (a mask, say) differ by nan: nothing was trained here
        decomposition = decompose(delta, device, name=label(paired.name, index))
    summary = summarise(paired, index, delta, decomposition)
    spectrum = put_spectrum(paired, index, decomposition, store, 0.0, summary)
    if needs_delta(spectrum, rule, params):
        spectrum = with_threshold(paired, index, spectrum, delta, store, rule, params)
    del delta
    warnings = _put_factors(paired, index, decomposition, store, spectrum, (rule, params))
    seconds = time.perf_counter() - started
    warnings = tuple(dict.fromkeys((*spectrum.warnings, *warnings)))
    return matrix_row(dataclasses.replace(spectrum, seconds=seconds, warnings=warnings), rule, params)


def scan_stack(
    paired: PairedTensor, indices: list[int], device: str, threads: int, root: Path, rule: str, params: dict[str, Any]
) -> list[dict[str, Any] | Exception]:
    """Return what `scan_matrix` returns, or raises, for several matrices of a stack, decomposed together."""
    torch.set_num_threads(threads)
    deltas = [compute_delta(paired, index, device) for index in indices]
    try:
        found = decompose_stack(deltas, device, [label(paired.name, index) for index in indices])
    except SpectrumError:
        found = None  # one of them is not finite: each is looked at by itself
    results: list[dict[str, Any] | Exception] = []
    for number, index in enumerate(indices):
        ready = None if found is None else (deltas[number], found[number])
        try:
            results.append(scan_matrix(paired, index, device, threads, root, rule, params, ready))
        except Exception as error:  # whatever befalls one matrix is its result; the others go on
            results.append(error)
    return results


def with_threshold(
    paired: PairedTensor,
    index: int | None,
    spectrum: Spectrum,
    delta: torch.Tensor,
    store: SpectrumStore,
    rule: str,
    params: dict[str, Any],
) -> Spectrum:
    """Return a spectrum whose summary holds the tau of a rule that needs the delta, and store it so."""
    tau = apply_rule(spectrum, rule, params | {"scale": 1.0}, delta).tau
    known = spectrum.summary.get("thresholds", {}) | {threshold_key(rule, params): tau}
    summary = spectrum.summary | {"thresholds": known}
    warnings = spectrum.warnings
    try:
        store.put(spectrum_key(paired, index), spectrum.s, spectrum.shape, spectrum.certificate, summary)
    except DgvizError as error:
        warnings = tuple(dict.fromkeys((*warnings, str(error))))
    return dataclasses.replace(spectrum, summary=summary, stored=False, warnings=warnings)


def _put_factors(
    paired: PairedTensor,
    index: int | None,
    decomposition: Decomposition,
    store: SpectrumStore,
    spectrum: Spectrum,
    rule: tuple[str, dict[str, Any]],
) -> tuple[str, ...]:
    """Store the triplets that DG-Hard or the scan's own rule keeps, the more the better; return warnings."""
    rank = _stored_rank(paired, index, spectrum, rule)
    if rank == 0:
        return ()
    left, right = (factor.cpu().numpy() for factor in decomposition.triplets(rank))
    try:
        store.put_factors(spectrum_key(paired, index), left, right)
    except DgvizError as error:
        return (str(error),)
    return ()


def _stored_rank(
    paired: PairedTensor, index: int | None, spectrum: Spectrum, rule: tuple[str, dict[str, Any]]
) -> int:
    """Return how many triplets are worth storing: what a rule keeps, where that fits under the cap."""
    sides = select_matrix(paired, index)[:2]
    per_rank = sum(spectrum.shape) * (8 if "float64" in (side.dtype for side in sides) else 4)
    cap = min(_FACTOR_BYTES, _FACTOR_SHARE * sides[1].nbytes)
    wanted = {apply_rule(spectrum, name, params).rank for name, params in (("dg_hard", {}), rule)}
    return max((rank for rank in wanted if rank * per_rank <= cap), default=0)


def spectrum_report(
    pair: CheckpointPair, name: str, rule: str, params: dict[str, Any], device: str = "auto"
) -> dict[str, Any]:
    """Return one weight's spectrum and threshold as plain values; lists, one item per matrix, for a stack."""
    paired = pair[name]
    if paired.action != "repair":
        raise PairError(f"{name!r} has no spectrum to show: {paired.reason}")
    layout = matrix_layout(name, paired.tuned.shape)
    indices = [None] if layout.stack is None else range(layout.stack)
    spectra = [_with_rule(paired, index, rule, params, device) for index in indices]
    rows = [
        matrix_row(spectrum, rule, params)
        | {"beta": aspect_ratio(spectrum.live_shape), "singular_values": spectrum.s.tolist()}
        for spectrum in spectra
    ]
    common = {
        "name": name,
        "shape": list(paired.tuned.shape),
        "rule": rule,
        "params": params,
    }
    return common | (rows[0] if layout.stack is None else stack_rows(rows))


def _with_rule(paired: PairedTensor, index: int | None, rule: str, params: dict[str, Any], device: str) -> Spectrum:
    """Return one weight's spectrum, with the tau of a rule that needs the delta."""
    store = SpectrumStore()
    spectrum = read_spectrum(paired, index, device, store)
    if not needs_delta(spectrum, rule, params):
        return spectrum
    delta = compute_delta(paired, index, resolve_device(device))
    return with_threshold(paired, index, spectrum, delta, store, rule, params)
