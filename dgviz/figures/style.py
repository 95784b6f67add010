"""What every figure shares: colours that read on light and dark pages, a transparent ground, and image export."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

# Each has a contrast of at least 3 to white and to a near-black page, so one figure serves both themes.
ACCENT = "#c6520d"  # what is kept, and tau
MUTED = "#7d8597"  # what is dropped
BULK_EDGE = "#1a9988"
LAW = "#4a7fd6"  # the Marchenko-Pastur density
GRID = "rgba(125, 133, 151, 0.22)"
RULE_COLOURS = (
    "#c6520d", "#4a7fd6", "#1a9988", "#b45cc9", "#b8860b", "#d6487a", "#6c8f2b", "#7d8597",
    "#2f8fbf", "#a0653f", "#7a6ae0", "#c0504d",
)  # fmt: skip
PALE = ([0, "#eef4fb"], [0.5, "#8db5e1"], [1, "#1a5fb4"])  # shares from 0 to 1 on a light page, as the model's map
DEEP = ([0, "#172334"], [0.5, "#28619d"], [1, "#7ab2f4"])  # and on a dark one
LABEL_HEIGHT = 18  # pixels from one line of annotation text to the next
MAX_POINTS = 4000
LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def plot_config(filename: str, image: str = "svg") -> dict[str, Any]:
    """Return Plotly's configuration: no logo, and a camera button that writes `filename`.svg or .png.

    Parameters
    ----------
    filename : str
        Name of the downloaded image, without extension.
    image : str
        ``svg``, or ``png`` with four pixels for one.
    """
    scale = 2 if image == "png" else 1
    return {
        "displaylogo": False,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
        "toImageButtonOptions": {"format": image, "filename": filename, "width": 1000, "height": 480, "scale": scale},
    }


def base_layout(height: int, **axes: Any) -> go.Layout:
    """Return the layout common to all figures: transparent, no template, quiet grid."""
    quiet = {"gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "showline": True, "ticks": "outside"}
    quiet |= {"tickcolor": MUTED, "ticklen": 4, "automargin": True}
    for name in ("xaxis", "yaxis"):
        axes[name] = quiet | axes.get(name, {})
    defaults = {"margin": {"l": 64, "r": 16, "t": 14, "b": 52}, "showlegend": False, "hovermode": "closest"}
    return go.Layout(
        **(defaults | axes), height=height, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", bargap=0
    )


def layer_axis(levels: Sequence[str]) -> dict[str, Any]:
    """Return an axis over the layers of a tower, with as many of their numbers as fit."""
    ticks = range(0, len(levels), max(1, round(len(levels) / 40)))
    return {
        "title": {"text": "layer"},
        "tickvals": list(ticks),
        "ticktext": [levels[position] for position in ticks],
        "range": [-0.5, len(levels) - 0.5],
    }


def number(value: float) -> str:
    """Return a value as the figures print it: four significant digits."""
    return f"{value:.4g}"


def thin_ranks(count: int, rank: int, limit: int = MAX_POINTS) -> NDArray[np.int64]:
    """Return the 0-based positions of a long line that are worth drawing: spikes, boundary and an even remainder."""
    if count <= limit:
        return np.arange(count)
    dense = limit // 4
    even = np.linspace(dense, count - 1, limit - dense - 2).round().astype(np.int64)
    boundary = [i for i in (rank - 1, rank) if 0 <= i < count]
    return np.unique(np.concatenate([np.arange(dense), even, np.asarray(boundary, dtype=np.int64)]))


def spectrum_floor(s: ArrayLike) -> float:
    """Return the smallest singular value a logarithmic axis needs to show."""
    values = np.asarray(s, dtype=np.float64)
    positive = values[values > 0]
    if positive.size == 0:
        return 1e-3
    typical = float(np.median(values))
    return max(float(positive.min()), typical / 100 if typical > 1e-12 * positive.max() else positive.max() / 1e3)
