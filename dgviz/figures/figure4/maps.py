"""Pooled maps of one weight: block edges, colour scales and the 8-bit codes that travel to the browser; numpy only.

A map is a matrix of magnitudes reduced to block maxima and then to one byte per block. The code of a value never
falls when the value grows, so the maximum of codes is the code of the maximum: the browser may pool a map further
and still show what pooling the magnitudes themselves would have shown. Code 0 means exactly zero, nothing else.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOP_CODE = 255
# A bulk at a fifth of the peak is plain on a linear scale, one at a tenth on a square-root scale.
_LINEAR_RATIO = 5.0
_SQRT_RATIO = 10.0
_TICK_GAP = 0.07  # of the colour bar's length, between two of its numbers
_LOG_HEADROOM = 6.0  # a log scale starts this factor below the bulk, so that the bulk has contrast of its own


def block_edges(length: int, blocks: int) -> NDArray[np.int64]:
    """Return the ends of `blocks` nearly equal runs of ``range(length)``: run i is ``[edges[i], edges[i + 1])``."""
    if not 1 <= blocks <= length:
        raise ValueError(f"cannot cut {length} into {blocks} non-empty runs")
    return np.arange(blocks + 1, dtype=np.int64) * length // blocks


@dataclass(frozen=True)
class Scale:
    """How magnitudes become codes: one scale for all panels of a figure row.

    Attributes
    ----------
    kind : {"linear", "sqrt", "log"}
        The law between magnitude and code.
    low : float
        Magnitude of code 1 on a log scale (smaller nonzero ones share it); 0 on the others.
    high : float
        Magnitude of code 255; larger ones share it. 0 when every magnitude is zero.
    """

    kind: Literal["linear", "sqrt", "log"]
    low: float
    high: float

    def position(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return where magnitudes lie between the bottom (0) and the top (1) of the colour bar, not rounded."""
        v = np.asarray(values, dtype=np.float64)
        if self.high == 0:
            return np.zeros(v.shape)
        if self.kind == "log":
            span = math.log(self.high / self.low)
            return np.clip((1 + 254 * np.log(np.maximum(v, self.low) / self.low) / span) / TOP_CODE, 0.0, 1.0)
        share = np.clip(v / self.high, 0.0, 1.0)
        return np.sqrt(share) if self.kind == "sqrt" else share

    def encode(self, values: ArrayLike) -> NDArray[np.uint8]:
        """Return the codes of magnitudes: monotone, 0 for exactly zero and 1 to 255 for everything else."""
        v = np.asarray(values, dtype=np.float64)
        if not (np.isfinite(v) & (v >= 0)).all():
            raise ValueError("a map holds finite magnitudes >= 0 only")
        codes = np.maximum(np.rint(self.position(v) * TOP_CODE), 1)
        return np.where(v > 0, codes, 0).astype(np.uint8)

    def decode(self) -> NDArray[np.float64]:
        """Return the magnitude that each of the 256 codes stands for."""
        codes = np.arange(TOP_CODE + 1, dtype=np.float64)
        if self.kind == "log" and self.high > 0:
            values = self.low * (self.high / self.low) ** ((codes - 1) / 254)
        elif self.kind == "sqrt":
            values = self.high * (codes / TOP_CODE) ** 2
        else:
            values = self.high * codes / TOP_CODE
        values[0] = 0.0
        return values

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions (0 to 1) and labels of the colour bar's numbers, bottom to top."""
        if self.high == 0:
            return [(0.0, "0")]
        if self.kind == "log":
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            values = [10.0**e for e in range(last, first - 1, -1)]
            if last - first < 3:
                values = _round_values(self.low, self.high)
        elif self.kind == "sqrt":
            values = _round_values(self.high / 1000, self.high)
        else:
            step = nice_step(self.high / 4)
            values = [step * i for i in range(int(self.high / step * (1 + 1e-9)), 0, -1)]
        ticks: list[tuple[float, str]] = []
        for where, value in zip(self.position(values).tolist(), values, strict=True):
            if where > _TICK_GAP and (not ticks or ticks[-1][0] - where > _TICK_GAP):
                ticks.append((where, _short(value)))
        return [(0.0, "0"), *reversed(ticks)]


def _short(value: float) -> str:
    """Return a round number as text, with an exponent only where digits alone would be long."""
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e")


def _round_values(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two positive numbers, descending."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [v for v in sorted((m * 10.0**e for e in powers for m in (1, 2, 5)), reverse=True) if low <= v <= high]


def nice_step(rough: float) -> float:
    """Return the step nearest to `rough` among 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return min((m * power for m in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))


def choose_scale(peak: float, bulk: float) -> Scale:
    """Return the scale that shows both the largest magnitude and the noise: linear, square root or logarithmic."""
    if peak == 0:
        return Scale("linear", 0.0, 0.0)
    if bulk <= 0 or peak / bulk <= _LINEAR_RATIO:
        return Scale("linear", 0.0, float(peak))
    if peak / bulk <= _SQRT_RATIO:
        return Scale("sqrt", 0.0, float(peak))
    return Scale("log", float(bulk) / _LOG_HEADROOM, float(peak))


@dataclass(frozen=True)
class SpectrumPanels:
    """Panels (e), (f), (g) at every tau: sigma_r |u_r[i]| with rows pooled and every direction kept apart.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the weight.
    s : (p,) float64 array
        Singular values, descending.
    scale : Scale
        The scale of the figure's lower row.
    directions : (rows, p) uint8 array
        Codes; row block i is that of ``block_edges(shape[0], rows)``.
    exact : int or None
        How many leading columns show single directions; of the others each stands for its neighbourhood
        (`dgviz.spectra.svd.sketch`). None for all.
    """

    shape: tuple[int, int]
    s: NDArray[np.float64]
    scale: Scale
    directions: NDArray[np.uint8]
    exact: int | None = None


@dataclass(frozen=True)
class Window:
    """A part of a matrix, and how the entries of one block of it become one magnitude.

    Attributes
    ----------
    rows, columns : (int, int) or None
        First and one past the last; None for all of them.
    pooling : {"max", "rms"}
        The largest magnitude, or the root of the mean square.
    """

    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    pooling: Literal["max", "rms"] = "max"

    def spans(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return rows and columns within a matrix of some shape.

        Raises
        ------
        ValueError
            If one of them is empty or lies outside.
        """
        rows, columns = self.rows or (0, shape[0]), self.columns or (0, shape[1])
        for (first, end), length in zip((rows, columns), shape, strict=True):
            if not 0 <= first < end <= length:
                raise ValueError(f"a part from {first} up to {end} lies outside 0 to {length}")
        return rows, columns


WHOLE = Window()


@dataclass(frozen=True)
class EntryPanels:
    """Panels (b), (c), (d) at one rank: magnitudes of the entries, pooled by blocks.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the weight.
    rank : int
        Number of singular values kept in `repaired`.
    scale : Scale
        The scale of the figure's upper row, from the tuned delta.
    tuned, repaired, discarded : (rows, cols) uint8 arrays
        Codes of D, D* and D - D*; blocks are those of `block_edges` within the window.
    window : Window
        Which part is shown, and how blocks are pooled.
    exact : pair of (rows, cols) float32 arrays, optional
        D and D* themselves, with signs, where the window has few entries.
    """

    shape: tuple[int, int]
    rank: int
    scale: Scale
    tuned: NDArray[np.uint8]
    repaired: NDArray[np.uint8]
    discarded: NDArray[np.uint8]
    window: Window = WHOLE
    exact: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class ComparedSide:
    """What one side of a comparison makes of an update D: its own update D', drawn and measured.

    Attributes
    ----------
    repaired, discarded : (rows, cols) uint8 arrays
        Codes of the entries of D' and of D - D'.
    tau : float or None
        Where its threshold stands; None without one.
    rank : int or None
        Directions left; None where that is no number that says anything.
    energy : float
        ``|D'|^2 / |D|^2``.
    fits : three of float or None
        MP-fit of D', of D - D', and of the latter's values that are not zero.
    gain : (p,) float64 array or None
        What every direction of D is multiplied by; None where D' has directions of its own.
    missing : dict of str to str
        Why ``tau``, ``rank``, ``fits`` or ``directions`` are not defined.
    directions : (rows, p) uint8 array or None
        The map of the directions of D, where D is another fine-tune's; None for the weight's own.
    """

    repaired: NDArray[np.uint8]
    discarded: NDArray[np.uint8]
    tau: float | None
    rank: int | None
    energy: float
    fits: tuple[float | None, float | None, float | None]
    gain: NDArray[np.float64] | None
    missing: dict[str, str]
    directions: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ComparedPanels:
    """Two sides of a comparison, on the scale of the weight's own maps, and what differs between them.

    Attributes
    ----------
    a, b : ComparedSide
        The sides.
    between : (rows, cols) uint8 array
        Codes of the entries of B's update minus A's.
    """

    a: ComparedSide
    b: ComparedSide
    between: NDArray[np.uint8]


@dataclass(frozen=True)
class NoiseTwin:
    """Pure noise of a weight's shape and sigma, drawn as the weight's own update is.

    Attributes
    ----------
    s : (p,) float64 array
        Its singular values, descending.
    entries : EntryPanels
        Its maps at the same tau, on the weight's own scale.
    against : EntryPanels, optional
        The same at the tau that this one is compared with.
    between : (rows, cols) uint8 array, optional
        Codes of its directions between the two.
    """

    s: NDArray[np.float64]
    entries: EntryPanels
    against: EntryPanels | None = None
    between: NDArray[np.uint8] | None = None
