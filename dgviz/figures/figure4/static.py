"""Figure 4 of one weight as a picture for print: one SVG with all seven panels, lettered and captioned.

The same maps as in the browser, on white; the button of the dashboard and the command line draw it here.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import sample_colorscale

import dgviz
from dgviz.figures import svg
from dgviz.figures.figure4.maps import EntryPanels, Scale, SpectrumPanels
from dgviz.figures.figure4.payload import law_missing
from dgviz.figures.style import ACCENT, BULK_EDGE, LAW, MUTED
from dgviz.rmt.law import aspect_ratio, mp_sv_pdf, mp_sv_support
from dgviz.rmt.null import mp_fits
from dgviz.rmt.threshold import Threshold

WIDTH = 1000
_LEFT, _RIGHT, _GAP = 62, 74, 34  # room for the axis, the colour bar, and the signs between columns
_TOP, _SPECTRUM, _PANEL = 30, 190, 230
_SPLIT = 0.64  # of the width of panel (a), to ranks; the rest is the density's
_BINS = 44
_NOISE, _STRUCTURED = "#f6d4d4", "#d3ecdd"  # as in the paper: red looks like noise, green is structure


def figure4_svg(
    s: NDArray[np.float64],
    threshold: Threshold,
    entries: EntryPanels,
    directions: SpectrumPanels,
    *,
    tau: float,
    nonzero_shape: Sequence[int],
    caption: str,
) -> str:
    """Return Figure 4 of one weight as an SVG document.

    Parameters
    ----------
    s : (p,) float64 array
        Singular values of the update, descending.
    threshold : Threshold
        The noise that a rule has found: sigma, bulk edge.
    entries : EntryPanels
        Maps of the entries, at the rank that `tau` keeps.
    directions : SpectrumPanels
        Map of the directions.
    tau : float
        The threshold drawn.
    nonzero_shape : (int, int)
        Rows and columns that are not zero throughout, of which the noise law is.
    caption : str
        What stands below: weight, rule and what else is to be known.

    Returns
    -------
    str
        A document of its own: no fonts, pictures or styles from elsewhere.

    Raises
    ------
    ValueError
        If the entry maps are of another rank than `tau` keeps.
    """
    rank = int(np.count_nonzero(s > tau))
    if entries.rank != rank:
        raise ValueError(f"tau {tau:g} keeps {rank} directions, and the entry maps are of rank {entries.rank}")
    width = (WIDTH - _LEFT - _RIGHT - 2 * _GAP) / 3
    columns = [_LEFT + i * (width + _GAP) for i in range(3)]
    upper = _TOP + _SPECTRUM + 102
    lower = upper + _PANEL + 50
    lines = svg.wrap(caption, 140)
    height = lower + _PANEL + 46 + 16 * len(lines)
    parts = [_spectrum(s, threshold, tau, rank, nonzero_shape)]
    parts += _heads(s, threshold, rank, nonzero_shape, columns, width, upper)
    entry_maps = (entries.tuned, entries.repaired, entries.discarded)
    m, n = entries.shape
    for letter, x, codes, what in zip("bcd", columns, entry_maps, ("D", "D*", "D - D*"), strict=True):
        parts.append(_map(codes, x, upper, width, f"({letter})", f"entries of {what}", n, "inputs"))
    drawn = _log_columns(directions.directions, rank)
    whole, boundary = drawn
    kept, dropped = whole.copy(), whole.copy()
    kept[:, boundary:], dropped[:, :boundary] = 0, 0
    for letter, x, codes, what in zip("efg", columns, (whole, kept, dropped), ("D", "D*", "D - D*"), strict=True):
        parts.append(_map(codes, x, lower, width, f"({letter})", f"directions of {what}", s.size, "direction, log"))
        parts.append(_sides(x, lower, width, boundary / whole.shape[1], rank, s.size))
    for top, label, scale in (
        (upper, "largest |entry| of a block", entries.scale),
        (lower, "largest s |u|", directions.scale),
    ):
        parts.append(_bar(scale, WIDTH - _RIGHT + 8, top, label))
        parts.append(_rows(m, top))
        for x, sign in zip(columns[1:], "=+", strict=True):
            parts.append(svg.text(x - _GAP / 2, top + _PANEL / 2 + 6, sign, size=20, anchor="middle"))
    for i, line in enumerate(lines):
        parts.append(svg.text(_LEFT, lower + _PANEL + 44 + 16 * i, line, size=12, colour=svg.SOFT))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif" role="img">\n'
        f"<title>{escape(caption)}</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def caption_of(
    name: str,
    shape: Sequence[int],
    sides: Sequence[str],
    rule: str,
    s: NDArray[np.float64],
    tau: float,
    exact: int | None = None,
) -> str:
    """Return what is to be said below the figure of a weight: what it is, what is kept, and by which threshold.

    Where only `exact` directions are drawn one by one, that too (see `dgviz.figures.figure4.maps.SpectrumPanels`).
    """
    rank = int(np.count_nonzero(s > tau))
    share = 100 * float(np.sum(s[:rank] ** 2)) / (float(np.sum(s**2)) or 1.0)
    kept = f"{rank} of {s.size} singular directions and {share:.1f} % of the energy"
    if exact is not None:
        kept += f"; after direction {exact} the lower maps sketch each neighbourhood of directions"
    return (
        f"Update of {name}, {shape[0]} x {shape[1]}, from {sides[0]} to {sides[1]}. "
        f"{rule}: tau = {tau:.4g} keeps {kept}. "
        "(b) = (c) + (d) and (e) = (f) + (g), entry by entry; a map shows the largest size within a block. "
        f"dgviz {dgviz.__version__}."
    )


def _spectrum(
    s: NDArray[np.float64], threshold: Threshold, tau: float, rank: int, nonzero_shape: Sequence[int]
) -> str:
    """Return panel (a): values against rank, their density beside it, tau and edge through both."""
    top, bottom, left, right = _TOP, _TOP + _SPECTRUM, _LEFT, WIDTH - 16
    split = left + (right - left) * _SPLIT
    parts = [
        svg.text(left, top - 12, "(a)", bold=True),
        svg.text(left + 24, top - 12, "singular values of the update D"),
    ]
    if s[0] == 0:
        return "\n".join(
            [*parts, svg.text((left + right) / 2, (top + bottom) / 2, "D is exactly zero", anchor="middle")]
        )
    edge = 0.0 if law_missing(threshold) else threshold.edge
    smallest = s[s > s[0] * 1e-7][-1]
    low = max(min(max(smallest * 0.95, edge / 20), s[0]), s[0] * 1e-6)
    high = 1.25 * max(s[0], edge)

    def y(value: float) -> float:
        return bottom - (bottom - top) * min(1.0, max(0.0, math.log(max(value, low) / low) / math.log(high / low)))

    def x(place: float) -> float:
        return left + 6 + (split - left - 20) * math.log(place) / math.log(max(2, s.size))

    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for step in (1, 3):
            value = step * 10.0**power
            if low <= value <= high:
                parts.append(svg.line(left, y(value), right, y(value), "#dddddd", 0.6))
                parts.append(svg.text(left - 6, y(value) + 4, f"{value:g}", size=11, colour=svg.SOFT, anchor="end"))
    for place in (p for power in range(6) for p in (10**power, 3 * 10**power) if p <= s.size):
        parts.append(svg.text(x(place), bottom + 14, str(place), size=11, colour=svg.SOFT, anchor="middle"))
    shown = sorted({*range(min(200, s.size)), *np.linspace(0, s.size - 1, 400).astype(int).tolist()})
    points = " ".join(f"{x(i + 1):.1f},{y(s[i]):.1f}" for i in shown if s[i] > 0)
    parts.append(f'<polyline points="{points}" fill="none" stroke="{MUTED}" stroke-width="1.6"/>')
    parts.append(_density(s[: min(nonzero_shape)], edge, nonzero_shape, tau, low, high, split, right, y))
    if edge:
        parts.append(svg.line(left, y(edge), right, y(edge), BULK_EDGE, 1.4, "2 3"))
        where = y(edge) + 14 if tau >= edge else y(edge) - 5
        parts.append(svg.text(left + 8, where, f"bulk edge {edge:.4g}", size=11, colour=BULK_EDGE))
    parts += [f'<circle cx="{x(i + 1):.1f}" cy="{y(s[i]):.1f}" r="3" fill="{ACCENT}"/>' for i in range(min(rank, 60))]
    parts.append(svg.line(left, y(tau), right, y(tau), ACCENT, 1.8))
    parts.append(
        svg.text(split - 12, y(tau) - 6, f"τ = {tau:.4g} keeps {rank} of {s.size}", size=12, anchor="end", bold=True)
    )
    parts.append(svg.text((left + split) / 2, bottom + 30, "rank r", size=12, colour=svg.SOFT, anchor="middle"))
    words = "density, and the Marchenko-Pastur law of pure noise" if edge else "density"
    parts.append(svg.text((split + right) / 2, bottom + 30, words, size=12, colour=svg.SOFT, anchor="middle"))
    return "\n".join(parts)


def _density(
    s: NDArray[np.float64],
    edge: float,
    nonzero_shape: Sequence[int],
    tau: float,
    low: float,
    high: float,
    split: float,
    right: float,
    y: Callable[[float], float],
) -> str:
    """Return bars and law per unit of ln s."""
    unit = math.log(high / low) / _BINS
    edges = low * np.exp(unit * np.arange(_BINS + 1))
    bars = np.histogram(s, edges)[0] / (s.size * unit)
    law = (np.empty(0), np.empty(0))
    if edge:
        beta = aspect_ratio(nonzero_shape)
        first, last = mp_sv_support(beta)
        places = np.geomspace(max(float(first), low * float(last) / edge, 1e-12), float(last), 160)
        law = (places * edge / float(last), places * np.asarray(mp_sv_pdf(places, beta)))
    most = max(float(bars.max()), float(law[1].max(initial=0.0)), 1e-12)
    room = right - split - 4
    parts = []
    for i, share in enumerate(bars):
        above = math.sqrt(edges[i] * edges[i + 1]) > tau
        top, height = y(edges[i + 1]), max(0.8, y(edges[i]) - y(edges[i + 1]) - 0.8)
        colour, opacity = (ACCENT, 0.9) if above else (MUTED, 0.6)
        parts.append(
            f'<rect x="{split:.1f}" y="{top:.1f}" width="{room * share / most:.1f}" height="{height:.1f}" '
            f'fill="{colour}" opacity="{opacity}"/>'
        )
    if law[0].size:
        points = " ".join(f"{split + room * d / most:.1f},{y(v):.1f}" for v, d in zip(*law, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{LAW}" stroke-width="2"/>')
    return "\n".join(parts)


def _heads(
    s: NDArray[np.float64],
    threshold: Threshold,
    rank: int,
    nonzero_shape: Sequence[int],
    columns: Sequence[float],
    width: float,
    top: float,
) -> list[str]:
    """Return the names of the columns, each with its fit to the noise law and its share of the energy."""
    kept = np.where(np.arange(s.size) < rank, s, 0.0)[: min(nonzero_shape)]
    sigma = 0.0 if law_missing(threshold) else threshold.sigma
    fits = mp_fits(s[: min(nonzero_shape)], kept, sigma, nonzero_shape)
    energy = float(np.sum(s**2)) or 1.0
    share = float(np.sum(s[:rank] ** 2)) / energy
    shares = {"tuned": 1.0, "repaired": share, "discarded": 1 - share}
    names = {"tuned": "Tuned, D", "repaired": "Repaired, D*", "discarded": "Discarded, D - D*"}
    parts = []
    for x, name in zip(columns, names, strict=True):
        fit = fits[name]
        words = "no MP-fit" if fit is None else f"MP-fit {fit:.1f}, noise of this shape {fits['noise']:.1f}"
        if name == "discarded" and fits["discarded_own"] is not None:
            words = f"MP-fit {fit:.1f} with zeros, {fits['discarded_own']:.1f} without; noise {fits['noise']:.1f}"
        fill = "#eeeeee"
        if fit is not None:
            fill = _NOISE if fit > fits["noise"] - 10 else _STRUCTURED if fit < 60 else fill
        parts.append(svg.text(x, top - 48, names[name], bold=True))
        parts.append(
            svg.text(x + width, top - 48, f"{100 * shares[name]:.1f} % of the energy", size=12, anchor="end")
        )
        parts.append(svg.box(x, top - 42, 6.1 * len(words) + 14, 8, fill))
        parts.append(svg.text(x + 7, top - 30, words, size=11))
    return parts


def _map(
    codes: NDArray[np.uint8], x: float, y: float, width: float, letter: str, what: str, end: int, axis: str
) -> str:
    """Return a map with its letter and the ends of its horizontal axis."""
    return "\n".join(
        [
            svg.text(x, y + _PANEL + 15, "1", size=11, colour=svg.SOFT),
            svg.text(x + width, y + _PANEL + 15, str(end), size=11, colour=svg.SOFT, anchor="end"),
            svg.text(x + width / 2, y + _PANEL + 15, axis, size=11, colour=svg.SOFT, anchor="middle"),
            f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_PANEL}" preserveAspectRatio="none" '
            f'style="image-rendering: pixelated" href="data:image/png;base64,{_png(codes)}"/>',
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_PANEL}" fill="none" stroke="#bbbbbb"/>',
            svg.text(x, y - 6, letter, size=12, bold=True),
            svg.text(x + 22, y - 6, what, size=12),
        ]
    )


def _sides(x: float, y: float, width: float, share: float, rank: int, count: int) -> str:
    """Return the line of the rank, with what stands on either side of it."""
    at = x + share * width
    parts = [svg.line(at, y, at, y + _PANEL, ACCENT, 1.2)] if 0 < rank < count else []
    boxes = [("end", max(at - 4, x + 58), f"kept {rank}", rank > 0)]
    boxes.append(("start", min(at + 4, x + width - 92), f"dropped {count - rank}", rank < count))
    for anchor, place, words, there in boxes:
        if there:
            length = 6.6 * len(words) + 8
            start = place - length + 4 if anchor == "end" else place - 4
            parts.append(
                f'<rect x="{start:.1f}" y="{y + 4:.1f}" width="{length:.1f}" height="16" rx="3" fill="#ffffff"/>'
            )
            parts.append(svg.text(place, y + 16, words, size=11, bold=True, anchor=anchor))
    return "\n".join(parts)


def _bar(scale: Scale, x: float, y: float, label: str) -> str:
    """Return a colour bar with its numbers."""
    stops = "".join(
        f'<stop offset="{i / 16:.4f}" stop-color="{_colours()[max(1, round(255 * i / 16))]}"/>' for i in range(17)
    )
    name = f"bar{y:.0f}"
    parts = [
        f'<defs><linearGradient id="{name}" x1="0" y1="1" x2="0" y2="0">{stops}</linearGradient></defs>',
        f'<rect x="{x:.1f}" y="{y:.1f}" width="10" height="{_PANEL}" fill="url(#{name})" stroke="#bbbbbb"/>',
    ]
    for position, text in scale.ticks():
        parts.append(svg.text(x + 14, y + _PANEL * (1 - position) + 4, text, size=10, colour=svg.SOFT))
    parts.append(svg.upright(WIDTH - 6, y + _PANEL / 2, label))
    return "\n".join(parts)


def _rows(count: int, y: float) -> str:
    """Return the vertical axis: outputs run down."""
    return "\n".join(
        [
            svg.text(_LEFT - 6, y + 10, "1", size=11, colour=svg.SOFT, anchor="end"),
            svg.text(_LEFT - 6, y + _PANEL, str(count), size=11, colour=svg.SOFT, anchor="end"),
            svg.upright(_LEFT - 26, y + _PANEL / 2, "outputs"),
        ]
    )


def _log_columns(codes: NDArray[np.uint8], rank: int, columns: int = 420) -> tuple[NDArray[np.uint8], int]:
    """Return a map of directions on a logarithmic axis, no column on both sides of a rank, and where that lies."""
    p = codes.shape[1]
    starts = np.minimum(
        p - 1, np.floor(np.exp(np.arange(columns + 1) / columns * math.log(p + 1)) + 1e-9).astype(int) - 1
    )
    boundary = columns if rank >= p else 0
    if 0 < rank < p:
        boundary = min(columns - 1, max(1, round(columns * math.log(rank + 1) / math.log(p + 1))))
    drawn = np.empty((codes.shape[0], columns), dtype=np.uint8)
    for j in range(columns):
        low, high = int(starts[j]), max(int(starts[j]) + 1, int(starts[j + 1]) if j + 1 < columns else p)
        if 0 < rank < p:
            low, high = (
                (min(low, rank - 1), min(high, rank)) if j < boundary else (max(low, rank), max(high, rank + 1))
            )
        drawn[:, j] = codes[:, low:high].max(axis=1)
    return drawn, boundary


def _png(codes: NDArray[np.uint8]) -> str:
    """Return a map as a PNG with a palette, in base64."""
    image = Image.fromarray(codes, mode="P")
    image.putpalette([int(colour[i : i + 2], 16) for colour in _colours() for i in (1, 3, 5)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _colours() -> list[str]:
    """Return the colour of every code: white for exactly zero, then magma from pale to dark."""
    shares = [1 - 0.94 * (code - 1) / 254 for code in range(1, 256)]
    sampled = sample_colorscale("Magma", shares, colortype="tuple")
    return ["#ffffff", *("#" + "".join(f"{round(255 * c):02x}" for c in colour) for colour in sampled)]
