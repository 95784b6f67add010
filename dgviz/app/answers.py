"""The weights that the app's worker process keeps open, and the questions about them that it answers.

Runs in the one warm process that owns torch. It holds the decompositions of the last few weights, up to a memory cap,
so that another tau asks the same factorisation for more or fewer triplets and never repeats a decomposition. Requests
and answers are plain values that travel between processes.
"""

from collections import OrderedDict
from typing import Any

from dgviz.analysis.effect import MethodPanel
from dgviz.checkpoint import CheckpointPair
from dgviz.figures.figure4.contrast import compute_method_panel
from dgviz.figures.figure4.maps import ComparedPanels, EntryPanels, NoiseTwin, SpectrumPanels
from dgviz.figures.figure4.panels import compute_between, compute_entry_panels, compute_spectrum_panels, compute_twin
from dgviz.repair.plan import RepairPlan
from dgviz.repair.whole_model import prepare_method
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.svd.decompose import list_devices, resolve_device
from dgviz.spectra.weight import Weight

_OPEN_BYTES = 2 * 2**30  # decompositions kept besides the newest one


class _DrawnWeight(OpenWeight):
    """An open weight, and the panels drawn of it last."""

    entry: EntryPanels | None = None
    panels: SpectrumPanels | None = None


_open: OrderedDict[tuple, _DrawnWeight] = OrderedDict()
_facts: dict[tuple, Any] = {}  # one small record per pair and setting that a page has asked for


def devices() -> list[tuple[str, str]]:
    """Return the devices of this machine as (id, label)."""
    return [(device.id, device.label) for device in list_devices()]


def spectrum(weight: Weight, device: str) -> Spectrum:
    """Return a weight's spectrum: from the store, from the open weight, or by opening it."""
    return OpenWeight(weight, device).known or _opened(weight, device).spectrum()


def spectrum_with_threshold(weight: Weight, device: str, rule: str, params: dict[str, Any]) -> Spectrum:
    """Return a weight's spectrum with the tau of a rule that needs the delta in its summary."""
    return _opened(weight, device).spectrum_with(rule, params)


def _opened(weight: Weight, device: str) -> _DrawnWeight:
    """Return an open weight, opening it if it is not; forget the oldest others."""
    place = resolve_device(device)
    key = (weight.key, place)
    if key not in _open:
        _forget(_OPEN_BYTES)
        _open[key] = _DrawnWeight(weight, place)
    _open.move_to_end(key)
    return _open[key]


def _forget(limit: int) -> None:
    """Drop the weights used longest ago until the others fit the limit."""
    while _open and sum(weight.nbytes for weight in _open.values()) > limit:
        _open.popitem(last=False)


def spectrum_panels(weight: Weight, device: str) -> SpectrumPanels:
    """Return the map behind the spectrum-space row of Figure 4."""
    drawn = _opened(weight, device)
    if drawn.panels is None:
        drawn.panels = compute_spectrum_panels(drawn.decomposition)
    return drawn.panels


def entry_panels(weight: Weight, device: str, rank: int) -> EntryPanels:
    """Return the maps of the entry-space row of Figure 4 at a rank."""
    drawn = _opened(weight, device)
    if drawn.entry is None or drawn.entry.rank != rank:
        drawn.entry = compute_entry_panels(drawn.decomposition, drawn.delta, rank, previous=drawn.entry)
    return drawn.entry


def compared_panels(weight: Weight, device: str, label: str, tau: float, rank: int, other: int) -> ComparedPanels:
    """Return the maps of a threshold of some rank, and of the directions between it and another rank."""
    drawn = _opened(weight, device)
    current = entry_panels(weight, device, other)
    entries = compute_entry_panels(drawn.decomposition, drawn.delta, rank, previous=current)
    between = compute_between(drawn.decomposition, min(rank, other), max(rank, other), current.scale)
    return ComparedPanels(label, tau, entries, other, between)


def noise_twin(weight: Weight, device: str, sigma: float, tau: float, rank: int) -> NoiseTwin:
    """Return noise of a weight's shape, on the scale of the weight's own maps at a rank."""
    scale = entry_panels(weight, device, rank).scale
    return compute_twin(weight.shape, sigma, tau, scale, resolve_device(device))


def method_panel(pair: CheckpointPair, weight: Weight, device: str, plan: RepairPlan) -> MethodPanel:
    """Return one weight's update under one method, drawn on the scale of the fine-tuned update's map.

    A method that needs the whole model reads it, once.
    """
    key = (pair.base.fingerprint, pair.tuned.fingerprint, device, plan.label)
    if key not in _facts:
        _facts[key] = prepare_method(pair, plan, device)
    drawn = _opened(weight, device)
    if drawn.entry is None:
        drawn.entry = compute_entry_panels(drawn.decomposition, drawn.delta, 0)
    return compute_method_panel(drawn, plan, _facts[key], drawn.entry.scale)
