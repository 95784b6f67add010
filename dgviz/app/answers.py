"""The weights that the app's worker process keeps open, and the questions about them that it answers.

Runs in the one warm process that owns torch. It holds the decompositions of the last few weights, up to a memory cap,
so that another tau asks the same factorisation for more or fewer triplets and never repeats a decomposition. Requests
and answers are plain values that travel between processes.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dgviz.analysis.direction import Alignments, Direction, align, describe_direction, leading_count
from dgviz.analysis.effect import MethodPanel, yardstick
from dgviz.analysis.lens import Lens, OpenLens, Reading, lens_table
from dgviz.analysis.sides import Side
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import PairError
from dgviz.figures.figure4.contrast import compute_method_panel, compute_side
from dgviz.figures.figure4.draw import draw_figure4
from dgviz.figures.figure4.maps import (
    WHOLE,
    ComparedPanels,
    ComparedSide,
    EntryPanels,
    NoiseTwin,
    SpectrumPanels,
    Window,
)
from dgviz.figures.figure4.panels import (
    compute_entry_panels,
    compute_spectrum_panels,
    compute_twin,
    pooled_magnitudes,
)
from dgviz.repair.plan import RepairPlan
from dgviz.repair.whole_model import prepare_method
from dgviz.rmt.spectrum import Spectrum
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.svd.decompose import Decomposition, decompose, list_devices, resolve_device
from dgviz.spectra.weight import Weight
from dgviz.table import Table

_OPEN_BYTES = 2 * 2**30  # decompositions kept besides the newest one


class _DrawnWeight(OpenWeight):
    """An open weight, and the panels drawn of it last."""

    entry: EntryPanels | None = None  # of all of it
    window: EntryPanels | None = None  # of a part, or pooled in another way
    panels: SpectrumPanels | None = None
    base: tuple[np.ndarray, np.ndarray] | None = None  # leading singular vectors of the base weight
    leading: tuple[np.ndarray, np.ndarray] | None = None  # and of the update
    sides: tuple[tuple[tuple, tuple[ComparedSide, torch.Tensor]], ...] = ()  # of comparisons, the last two

    @property
    def nbytes(self) -> int:
        """Memory held, estimated: what an open weight holds, and the vectors kept beside."""
        beside = sum(part.nbytes for pair in (self.base, self.leading) if pair is not None for part in pair)
        return super().nbytes + beside


_open: OrderedDict[tuple, _DrawnWeight] = OrderedDict()
_facts: OrderedDict[tuple, Any] = OrderedDict()  # one small record per pair and setting that a page has asked for
_FACTS_KEPT = 64


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


def figure4(weight: Weight, plan: RepairPlan, sides: tuple[str, str], device: str) -> str:
    """Return Figure 4 of a weight under a plan, as SVG."""
    return draw_figure4(weight, plan, sides, device)


def lens_of(pair: CheckpointPair, plan: RepairPlan, weights: Sequence[Weight], device: str) -> Table:
    """Return directions of some weights read through base's vocabulary."""
    return lens_table(pair, plan, weights, device)


def entry_panels(weight: Weight, device: str, rank: int, window: Window = WHOLE) -> EntryPanels:
    """Return the maps of the entry-space row of Figure 4 at a rank, or of a part of the matrix."""
    drawn = _opened(weight, device)
    if window != WHOLE:
        known = drawn.window if drawn.window is not None and drawn.window.window == window else None
        if known is None or known.rank != rank:
            drawn.window = compute_entry_panels(drawn.decomposition, drawn.delta, rank, known, window)
        return drawn.window
    if drawn.entry is None or drawn.entry.rank != rank:
        drawn.entry = compute_entry_panels(drawn.decomposition, drawn.delta, rank, previous=drawn.entry)
    return drawn.entry


def compared_panels(weight: Weight, device: str, sigma: float, a: Side, b: Side) -> ComparedPanels:
    """Return the maps of two sides of a comparison on the scales of a weight, and of what differs."""
    (first, before), (second, after) = (_side(side, weight, device, sigma) for side in (a, b))
    between = _opened(weight, device).entry.scale.encode(pooled_magnitudes(after - before))
    return ComparedPanels(first, second, between)


def _side(side: Side, weight: Weight, device: str, sigma: float) -> tuple[ComparedSide, torch.Tensor]:
    """Return one side and its update; those of a weight that were asked for last are kept."""
    own, drawn = _opened(weight, device), _opened(side.weight, device)
    if own.entry is None:
        own.entry = compute_entry_panels(own.decomposition, own.delta, 0)
    key = side.key, own.weight.key, own.entry.scale, sigma
    known = dict(drawn.sides)
    if key not in known:
        apart = drawn is not own
        measured = drawn.measured
        noise = (yardstick(measured.nonzero_s, measured.nonzero_shape).sigma or 0.0) if apart else sigma
        facts = _prepared(side.pair, device, side.plan)
        found, update = compute_side(drawn, side.plan, facts, own.entry.scale, noise)
        if apart:
            scale = spectrum_panels(weight, device).scale
            found = replace(found, directions=compute_spectrum_panels(drawn.decomposition, scale).directions)
        known[key] = found, update
    others = [item for item in drawn.sides if item[0] != key]
    drawn.sides = (*others[-1:], (key, known[key]))
    return known[key]


def noise_twin(
    weight: Weight, device: str, sigma: float, tau: float, rank: int, window: Window, against: float | None
) -> NoiseTwin:
    """Return noise of a weight's shape, on the scale of the weight's own maps at a rank."""
    return compute_twin(entry_panels(weight, device, rank, window), sigma, tau, resolve_device(device), against)


def direction(weight: Weight, device: str, number: int) -> Direction:
    """Return what one direction of a weight's update does."""
    drawn = _opened(weight, device)
    u, v = drawn.vectors(number)
    return describe_direction(drawn.measured.s, number, u, v)


def reading(weight: Weight, device: str, number: int, lens: Lens, stamp: str) -> Reading:
    """Return one direction of a weight's update read through base's vocabulary; `stamp` is of the pair."""
    vectors = _opened(weight, device).vectors(number)
    opened = _fact(("lens", lens.table, lens.folder, stamp), lambda: OpenLens(lens))
    return opened.read(lens, [number], vectors["uv".index(lens.side)][:, None])[0]


def alignments(weight: Weight, device: str, number: int, others: Mapping[str, Weight]) -> Alignments:
    """Return how one direction lies to base's own, and to those of the same weight's update in other fine-tunes."""
    drawn = _opened(weight, device)
    u, v = drawn.vectors(number)
    if drawn.base is None:
        base = drawn.as_stored.base().to(drawn.delta.dtype)
        drawn.base = _leading(decompose(base, drawn.device, name=f"{weight.name} in base"), weight.shape)
    beside = {}
    for name, other in others.items():
        if other.shape != weight.shape:
            raise PairError(f"{weight.name} is {weight.shape} here and {other.shape} in {name}: not comparable")
        opened = _opened(other, device)
        if opened.leading is None:
            opened.leading = _leading(opened.decomposition, other.shape)
        beside[name] = align(u, v, *opened.leading)
    return Alignments(align(u, v, *drawn.base), beside)


def _leading(decomposition: Decomposition, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading singular vectors of a matrix, (m, k) and (k, n), fewer where its rank is lower."""
    count = min(leading_count(shape), max(1, int(np.count_nonzero(np.asarray(decomposition.s)))))
    left, right = (part.cpu().numpy() for part in decomposition.triplets(count))
    lengths = np.linalg.norm(left, axis=0)
    return left / np.where(lengths > 0, lengths, 1), right


def method_panel(pair: CheckpointPair, weight: Weight, device: str, plan: RepairPlan) -> MethodPanel:
    """Return one weight's update under one method, drawn on the scale of the fine-tuned update's map.

    A method that needs the whole model reads it, once.
    """
    drawn = _opened(weight, device)
    if drawn.entry is None:
        drawn.entry = compute_entry_panels(drawn.decomposition, drawn.delta, 0)
    return compute_method_panel(drawn, plan, _prepared(pair, device, plan), drawn.entry.scale)


def _prepared(pair: CheckpointPair, device: str, plan: RepairPlan) -> Any:
    """Return what a plan's method takes from a whole pair, asked once."""
    key = (pair.base.fingerprint, pair.tuned.fingerprint, device, plan.label)
    return _fact(key, lambda: prepare_method(pair, plan, device))


def _fact(key: tuple, make: Callable[[], Any]) -> Any:
    """Return what is kept under a key, or make it."""
    if key not in _facts:
        _facts[key] = make()
        while len(_facts) > _FACTS_KEPT:
            _facts.popitem(last=False)
    return _facts[key]
