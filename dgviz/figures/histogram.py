"""The histogram of a spectrum with the Marchenko-Pastur density it should have if it were noise."""

import math

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from dgviz.figures.style import ACCENT, BULK_EDGE, LAW, MUTED, SMALL_LEGEND_ABOVE, base_figure
from dgviz.rmt.law import aspect_ratio, mp_sv_pdf, mp_sv_support
from dgviz.rmt.threshold import DEGENERATE_MEDIAN
from dgviz.words import number

_AXIS_REACH = 1.35  # the axis ends this factor beyond the larger of edge and tau; spikes further out are counted
_RIGHT_LABEL = 0.8  # a label right of its line needs the line to stand within this share of the axis
_LAW_POINTS = 400


def spectrum_histogram(
    s: ArrayLike,
    sigma: float | None,
    shape: tuple[int, int],
    tau: float,
    edge: float | None,
) -> go.Figure:
    """Return the density of the singular values, kept ones in the accent colour, under the density of pure noise.

    Parameters
    ----------
    s : (p,) array
        Singular values, descending.
    sigma : float or None
        Per-entry noise standard deviation; None, 0 or not finite draws no law and says so.
    shape : (int, int)
        Rows and columns of the delta.
    tau : float
        Threshold.
    edge : float or None
        Upper end of the noise bulk.

    Returns
    -------
    go.Figure
        Bars are counts / (p * bin width): with the values beyond the axis they make 1, as the law does. Values beyond
        the axis, which ends 1.35 times beyond the larger of edge and tau, are counted in a note.
    """
    values = np.asarray(s, dtype=np.float64)
    lawful = has_law(values, sigma)
    tau, edge = float(tau), float(edge) if edge and lawful else None  # Plotly takes no numpy scalars
    end = axis_end(values, tau, edge)
    bins = histogram_bins(values, end)
    law = law_curve(float(sigma or 0.0), shape) if lawful else None
    tallest = max(np.max(_density(values, values, bins)), np.max(law[1]) if law else 0.0)
    figure = base_figure(
        360,
        xaxis={"title": {"text": "singular value s"}, "range": [0, end]},
        # Room above everything drawn for the labels of edge and tau.
        yaxis={"title": {"text": "density"}, "range": [0, 1.16 * float(tallest)]},
        barmode="stack",
    )
    for name, colour, part in (("dropped", MUTED, values[values <= tau]), ("kept", ACCENT, values[values > tau])):
        figure.add_bar(x=(bins[:-1] + bins[1:]) / 2, y=_density(part, values, bins), width=np.diff(bins), name=name)
        figure.data[-1].marker = {"color": colour, "opacity": 0.75, "line": {"width": 0}}
    _marks(figure, tau, edge, end)
    if law:
        figure.add_scatter(
            x=law[0], y=law[1], name="Marchenko-Pastur", mode="lines", line={"color": LAW, "width": 2.2}
        )
        figure.update_layout(showlegend=True, legend=SMALL_LEGEND_ABOVE)
    else:
        _note(figure, "no Marchenko-Pastur law: the median singular value measures no noise", 0.5, 0.6, "center")
    figure.update_traces(hovertemplate="s %{x:.4g}: density %{y:.4g}")
    count = int(np.count_nonzero(values > end))
    if count:
        reach = f"{values[0] / edge:.3g}×<br>the edge" if edge else number(float(values[0]))
        _note(figure, f"{count} value{'s' if count > 1 else ''} →<br>up to {reach}", 0.995, 0.72, "right")
    return figure


def _density(part: NDArray[np.float64], s: NDArray[np.float64], bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the density over s of some of the singular values, as shares of all of them."""
    return np.histogram(part, bins)[0] / (s.size * np.diff(bins))


def has_law(s: NDArray[np.float64], sigma: float | None) -> bool:
    """Return whether a spectrum can be held against pure noise: sigma is positive and more than rounding."""
    known = sigma is not None and math.isfinite(sigma) and sigma > 0
    return known and bool(np.median(s) > DEGENERATE_MEDIAN * s[0])


def axis_end(s: NDArray[np.float64], tau: float, edge: float | None) -> float:
    """Return where the axis of singular values ends: 1.35 times beyond edge and tau, sooner if all is below."""
    largest = float(s[0])
    if edge is None:
        return 1.05 * largest or 1.0
    marks = max(edge, min(tau, 3 * edge))
    return min(_AXIS_REACH * marks, max(1.05 * largest, 1.15 * marks))


def histogram_bins(s: NDArray[np.float64], end: float) -> NDArray[np.float64]:
    """Return equal bins over ``[0, end]``: about sqrt(2 p) of them, 24 to 120."""
    return np.linspace(0.0, end, int(np.clip(round(math.sqrt(2 * s.size)), 24, 120)) + 1)


def law_curve(sigma: float, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Marchenko-Pastur density over s as points of a line, from one end of its support to the other."""
    beta, unit = aspect_ratio(shape), sigma * math.sqrt(max(shape))
    low, high = mp_sv_support(beta)
    # Points crowd at both ends, where the density falls like a square root.
    y = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, _LAW_POINTS))) / 2
    return unit * y, mp_sv_pdf(y, beta) / unit


def _marks(figure: go.Figure, tau: float, edge: float | None, end: float) -> None:
    """Draw edge and tau as vertical lines, their labels inside at the top, written away from each other."""
    marks = [
        (edge, BULK_EDGE, "dot", f"bulk edge {number(edge or 0.0)}"),
        (tau, ACCENT, "dash", f"τ = {number(tau)}"),
    ]
    right = max(tau, edge or 0.0)
    for value, colour, dash, text in marks:
        shown = value is not None and value <= end
        x = value if shown else 0.0
        line = {"color": colour, "width": 1.6, "dash": dash}
        figure.add_shape(type="line", yref="paper", x0=x, x1=x, y0=0, y1=1, line=line, visible=shown)
        side = "left" if value == right and x < _RIGHT_LABEL * end else "right"
        figure.add_annotation(
            x=x, xanchor=side, xshift=4 if side == "left" else -4, yref="paper", y=1, yanchor="top",
            text=text, showarrow=False, font={"color": colour, "size": 13}, visible=shown,
        )  # fmt: skip


def _note(figure: go.Figure, text: str, x: float, y: float, anchor: str) -> None:
    """Add a sentence inside the plot."""
    place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": anchor, "yanchor": "top", "align": anchor}
    figure.add_annotation(**place, text=text, showarrow=False, font={"size": 13})
