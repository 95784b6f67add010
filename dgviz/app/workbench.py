"""The weight on the workbench: what the app's worker process keeps open and answers questions about.

Runs in the one warm process that owns torch. It holds the decompositions of the last few weights, up to a memory cap,
so that another tau asks the same factorisation for more or fewer triplets and never repeats a decomposition. Requests
and answers are plain values that travel between processes.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from dgviz.analysis.effect import MethodPanel
from dgviz.checkpoint import CheckpointPair, PairedTensor
from dgviz.figures.figure4.contrast import compute_method_panel
from dgviz.figures.figure4.maps import EntryPanels, SpectrumPanels
from dgviz.figures.figure4.panels import compute_entry_panels, compute_spectrum_panels
from dgviz.repair.facts import ModelFacts, gather_facts
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.assess import needs_delta
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.delta import compute_delta
from dgviz.spectra.entries import summarise
from dgviz.spectra.scan import find_spectrum, label, put_spectrum, with_threshold
from dgviz.spectra.store import SpectrumStore, spectrum_key
from dgviz.spectra.svd.decompose import Decomposition, decompose, list_devices, resolve_device

_OPEN_BYTES = 2 * 2**30  # decompositions kept besides the newest one


@dataclass
class _OpenWeight:
    """One weight with its live factorisation, and the panels drawn last."""

    delta: torch.Tensor
    decomposition: Decomposition
    entry: EntryPanels | None = None
    spectrum: SpectrumPanels | None = None

    @property
    def nbytes(self) -> int:
        """Memory held, estimated: the delta and factors of the same size."""
        return 3 * self.delta.nbytes


_open: OrderedDict[tuple, _OpenWeight] = OrderedDict()
_facts: dict[tuple, ModelFacts] = {}  # one small record per pair and setting that a page has asked for


def devices() -> list[tuple[str, str]]:
    """Return the devices of this machine as (id, label)."""
    return [(device.id, device.label) for device in list_devices()]


def spectrum(paired: PairedTensor, index: int | None, device: str) -> Spectrum:
    """Return a weight's spectrum: from the store, from the open weight, or by opening it."""
    store = SpectrumStore()
    found = find_spectrum(paired, index, store)
    if found is None:
        started = time.perf_counter()
        weight = _weight(paired, index, device)
        summary = summarise(paired, index, weight.delta, weight.decomposition)
        found = put_spectrum(paired, index, weight.decomposition, store, time.perf_counter() - started, summary)
    return found


def spectrum_with_threshold(
    paired: PairedTensor, index: int | None, device: str, rule: str, params: dict[str, Any]
) -> Spectrum:
    """Return a weight's spectrum with the tau of a rule that needs the delta in its summary."""
    found = spectrum(paired, index, device)
    if not needs_delta(found, rule, params):
        return found
    delta = _weight(paired, index, device).delta
    return with_threshold(paired, index, found, delta, SpectrumStore(), rule, params)


def _weight(paired: PairedTensor, index: int | None, device: str) -> _OpenWeight:
    """Return the weight with its live factorisation, opening it if it is not open; forget the oldest others."""
    place = resolve_device(device)
    key = (spectrum_key(paired, index), place)
    if key not in _open:
        _forget(_OPEN_BYTES)
        delta = compute_delta(paired, index, place)
        _open[key] = _OpenWeight(delta, decompose(delta, place, name=label(paired.name, index)))
    _open.move_to_end(key)
    return _open[key]


def _forget(limit: int) -> None:
    """Drop the weights used longest ago until the others fit the limit."""
    while _open and sum(weight.nbytes for weight in _open.values()) > limit:
        _open.popitem(last=False)


def spectrum_panels(paired: PairedTensor, index: int | None, device: str) -> SpectrumPanels:
    """Return the map behind the spectrum-space row of Figure 4."""
    weight = _weight(paired, index, device)
    if weight.spectrum is None:
        weight.spectrum = compute_spectrum_panels(weight.decomposition)
    return weight.spectrum


def entry_panels(paired: PairedTensor, index: int | None, device: str, rank: int) -> EntryPanels:
    """Return the maps of the entry-space row of Figure 4 at a rank."""
    weight = _weight(paired, index, device)
    if weight.entry is None or weight.entry.rank != rank:
        weight.entry = compute_entry_panels(weight.decomposition, weight.delta, rank, previous=weight.entry)
    return weight.entry


def method_panel(
    pair: CheckpointPair, paired: PairedTensor, index: int | None, device: str, plan: RepairPlan
) -> MethodPanel:
    """Return one weight's update under one method, drawn on the scale of the fine-tuned update's map.

    A method that needs the whole model reads it, once.
    """
    key = (pair.base.fingerprint, pair.tuned.fingerprint, device, plan.label)
    if key not in _facts:
        _facts[key] = gather_facts(pair, plan, device)
    weight = _weight(paired, index, device)
    if weight.entry is None:
        weight.entry = compute_entry_panels(weight.decomposition, weight.delta, 0)
    scale = weight.entry.scale
    return compute_method_panel(paired, index, plan, _facts[key], weight.delta, weight.decomposition, scale)
