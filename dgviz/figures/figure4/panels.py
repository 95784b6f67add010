"""What Figure 4 of one weight draws, from its live decomposition: pooled maps in entry and in spectrum space; torch.

No full copy of the repaired or the discarded delta is ever made: row blocks of ``left @ right`` are multiplied,
pooled and forgotten. The results are the small numpy records of `maps`, which travel to the process that draws.
"""

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dgviz.errors import SpectrumError
from dgviz.figures.figure4.maps import (
    WHOLE,
    EntryPanels,
    NoiseTwin,
    Scale,
    SpectrumPanels,
    Window,
    block_edges,
    choose_scale,
)
from dgviz.rmt.law import aspect_ratio, sigma_from_median, svht_coef
from dgviz.spectra.svd.decompose import decompose

if TYPE_CHECKING:
    from dgviz.spectra.svd.decompose import Decomposition

TWIN_SEED = 0
MAX_ROWS = 320
MAX_COLUMNS = 512
MAX_DIRECTION_BYTES = 2_000_000
MOST_EXACT = 2**16  # entries of a window that travel as they are, 8 bytes each
_ROUNDING = 2 * float(np.finfo(np.float32).eps)
_CHUNK_ENTRIES = 4_000_000  # entries of D* alive at once: 16 MB in float32


def compute_spectrum_panels(
    decomposition: "Decomposition", scale: Scale | None = None, *, sketch: bool = True
) -> SpectrumPanels:
    """Return the map behind panels (e), (f) and (g): every direction, rows pooled; on `scale` or one of its own.

    Of a large weight the directions that the published threshold drops are sketched, unless that is not wanted: it
    takes a fifth of the time.
    """
    m, n = decomposition.shape
    s = np.asarray(decomposition.s, dtype=np.float64)
    rows = min(m, direction_rows(s.size))
    kept = int(np.count_nonzero(s > svht_coef(aspect_ratio((m, n))) * np.median(s))) if sketch else None
    magnitudes = decomposition.direction_maps(rows, kept).cpu().numpy().astype(np.float64)
    if magnitudes.shape != (rows, s.size):
        raise SpectrumError(
            f"the direction map of a {m} x {n} delta has shape {magnitudes.shape}, expected {(rows, s.size)}"
        )
    scale = scale or choose_scale(float(magnitudes.max()), _typical(magnitudes) if has_bulk(s) else 0.0)
    exact = kept if kept is not None and decomposition.sketches(kept) else None
    return SpectrumPanels((m, n), s, scale, scale.encode(magnitudes), exact)


def direction_rows(directions: int) -> int:
    """Return how many row blocks a map of `directions` columns gets: `MAX_ROWS` divided until the codes fit."""
    rows = MAX_ROWS
    while rows > 1 and rows * directions > MAX_DIRECTION_BYTES:
        rows //= 2
    return rows


def compute_entry_panels(
    decomposition: "Decomposition",
    delta: torch.Tensor,
    rank: int,
    previous: EntryPanels | None = None,
    window: Window = WHOLE,
) -> EntryPanels:
    """Return the maps of panels (b), (c) and (d): tuned delta D, repaired delta D* of `rank`, and D - D*.

    `previous` panels give their scale, and where they are of the same window their map of D.
    """
    m, n = (int(d) for d in decomposition.shape)
    p = min(m, n)
    if tuple(delta.shape) != (m, n):
        raise ValueError(f"the decomposition is of a {m} x {n} delta, the delta given is {tuple(delta.shape)}")
    if not 0 <= rank <= p:
        raise ValueError(f"the rank of a {m} x {n} delta lies in 0 to {p}; got {rank}")
    if previous is not None and previous.shape != (m, n):
        raise ValueError(f"the previous panels are of a {previous.shape} weight, not of {(m, n)}")
    (top, bottom), (first, end) = window.spans((m, n))
    part = delta[top:bottom, first:end]
    if previous is not None and previous.window == window:
        tuned, scale = previous.tuned, previous.scale
    else:
        magnitudes = pooled_magnitudes(part, window.pooling)
        scale = previous.scale if previous else entry_scale(magnitudes, decomposition.s, (m, n), part, window.pooling)
        tuned = scale.encode(magnitudes)
    if rank in (0, p):
        nothing = np.zeros_like(tuned)
        repaired, discarded = (nothing, tuned) if rank == 0 else (tuned, nothing)
        kept = torch.zeros_like(part) if rank == 0 else part
    else:
        left, right = decomposition.triplets(rank)
        left, right = left[top:bottom].to(part.device, part.dtype), right[:, first:end].to(part.device, part.dtype)
        repaired, discarded = (scale.encode(x) for x in _pooled_split(part, left, right, window.pooling))
        kept = left @ right if part.numel() <= MOST_EXACT else None
    exact = None
    if part.numel() <= MOST_EXACT:
        exact = tuple(values.to("cpu", torch.float32).numpy() for values in (part, kept))
    return EntryPanels((m, n), rank, scale, tuned, repaired, discarded, window, exact)


def compute_between(decomposition: "Decomposition", low: int, high: int, scale: Scale) -> NDArray[np.uint8]:
    """Return the map of the directions from rank `low` up to `high`, on a scale of the figure's upper row."""
    m, n = decomposition.shape
    if low == high:
        return np.zeros((min(m, MAX_ROWS), min(n, MAX_COLUMNS)), dtype=np.uint8)
    left, right = (part.contiguous() for part in decomposition.triplets(high))
    left, right = left[:, low:], right[low:]
    edges = block_edges(m, min(m, MAX_ROWS))
    rows = [
        _pooled_rows(left[edges[a] : edges[b]] @ right, edges[a : b + 1] - edges[a], "max")
        for a, b in _chunks(edges, torch.empty((m, n), device="meta"))
    ]
    return scale.encode(_pooled_columns(torch.cat(rows), "max"))


def compute_twin(own: EntryPanels, sigma: float, tau: float, device: str, against: float | None = None) -> NoiseTwin:
    """Return noise of independent entries, drawn with `TWIN_SEED`, that a weight's own panels can be held against.

    `against` is the tau that `tau` is compared with, where it is compared.
    """
    shape, scale, window = own.shape, own.scale, own.window
    generator = torch.Generator().manual_seed(TWIN_SEED)
    noise = (sigma * torch.randn(shape, generator=generator)).to(device)
    found = decompose(noise, device, name="noise")
    s = np.asarray(found.s, dtype=np.float64)
    (top, bottom), (first, end) = window.spans(shape)
    tuned = scale.encode(pooled_magnitudes(noise[top:bottom, first:end], window.pooling))
    nothing = EntryPanels(shape, 0, scale, tuned, np.zeros_like(tuned), tuned, window)
    rank = int(np.count_nonzero(s > tau))
    entries = compute_entry_panels(found, noise, rank, nothing, window)
    if against is None:
        return NoiseTwin(s, entries)
    other = int(np.count_nonzero(s > against))
    between = compute_between(found, min(rank, other), max(rank, other), scale)
    return NoiseTwin(s, entries, compute_entry_panels(found, noise, other, nothing, window), between)


def entry_scale(
    magnitudes: NDArray[np.float64],
    s: torch.Tensor,
    shape: tuple[int, int],
    part: torch.Tensor | None = None,
    pooling: str = "max",
) -> Scale:
    """Return the scale of the upper row: from the tuned delta's peak down to where its noise lies.

    Large spikes fill every block of the tuned map, so the noise cannot be read off it. Its level is the expected
    maximum ``sigma sqrt(2 ln b)`` of b normal entries, with sigma from the median singular value, and sigma itself
    where blocks are pooled to their root mean square. `part` is what is drawn of a matrix, all of it by default.
    """
    values = np.asarray(s, dtype=np.float64)
    bulk = _typical(magnitudes)
    if has_bulk(values):
        sigma = sigma_from_median(float(np.median(values)), shape)
        block = max(2.0, (shape[0] * shape[1] if part is None else part.numel()) / magnitudes.size)
        bulk = min(bulk, sigma * (1.0 if pooling == "rms" else math.sqrt(2 * math.log(block))))
    return choose_scale(float(magnitudes.max()), bulk)


def has_bulk(s: NDArray[np.float64]) -> bool:
    """Return whether a spectrum has a bulk worth a scale: its median is not lost in the rounding of s_1.

    A looser question than whether the median measures noise (`DEGENERATE_MEDIAN`): a bulk a million
    times below the spikes is drawn, though no threshold is made from it.
    """
    return bool(np.median(s) > _ROUNDING * s[0])


def pooled_magnitudes(matrix: torch.Tensor, pooling: str = "max") -> NDArray[np.float64]:
    """Return ``|matrix|`` pooled on at most `MAX_ROWS` x `MAX_COLUMNS` blocks (`block_edges`)."""
    edges = block_edges(matrix.shape[0], min(matrix.shape[0], MAX_ROWS))
    rows = [
        _pooled_rows(matrix[edges[a] : edges[b]], edges[a : b + 1] - edges[a], pooling)
        for a, b in _chunks(edges, matrix)
    ]
    return _pooled_columns(torch.cat(rows), pooling)


def _pooled_split(
    delta: torch.Tensor, left: torch.Tensor, right: torch.Tensor, pooling: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pooled magnitudes of ``left @ right`` and of ``delta - left @ right``, by runs of row blocks."""
    edges = block_edges(delta.shape[0], min(delta.shape[0], MAX_ROWS))
    repaired, discarded = [], []
    for a, b in _chunks(edges, delta):
        rows = slice(int(edges[a]), int(edges[b]))
        inner = edges[a : b + 1] - edges[a]
        product = left[rows] @ right
        repaired.append(_pooled_rows(product, inner, pooling))
        discarded.append(_pooled_rows(torch.sub(delta[rows], product, out=product), inner, pooling))
    return _pooled_columns(torch.cat(repaired), pooling), _pooled_columns(torch.cat(discarded), pooling)


def _chunks(edges: NDArray[np.int64], matrix: torch.Tensor) -> list[tuple[int, int]]:
    """Return runs of row blocks whose rows hold about `_CHUNK_ENTRIES` entries."""
    blocks = edges.size - 1
    per_chunk = max(1, int(_CHUNK_ENTRIES / (matrix.shape[1] * matrix.shape[0] / blocks)))
    return [(a, min(a + per_chunk, blocks)) for a in range(0, blocks, per_chunk)]


def _pooled_rows(chunk: torch.Tensor, edges: NDArray[np.int64], pooling: str) -> torch.Tensor:
    """Return max |entry|, or the mean square, of every column within every row block, as (blocks, n)."""
    blocks = (chunk[a:b] for a, b in itertools.pairwise(edges.tolist()))
    if pooling == "rms":
        return torch.stack([block.double().square().mean(dim=0) for block in blocks])
    return torch.stack([torch.maximum(block.amax(dim=0), block.amin(dim=0).neg()) for block in blocks])


def _pooled_columns(rows: torch.Tensor, pooling: str) -> NDArray[np.float64]:
    """Return magnitudes within the column blocks of a matrix whose rows are pooled already."""
    edges, pooled = block_edges(rows.shape[1], min(rows.shape[1], MAX_COLUMNS)), rows.cpu().numpy().astype(np.float64)
    if pooling == "rms":
        return np.sqrt(np.add.reduceat(pooled, edges[:-1], axis=1) / np.diff(edges))
    return np.maximum.reduceat(pooled, edges[:-1], axis=1)


def _typical(magnitudes: NDArray[np.float64]) -> float:
    """Return the median of the nonzero magnitudes, 0 when there are none."""
    positive = magnitudes[magnitudes > 0]
    return float(np.median(positive)) if positive.size else 0.0
