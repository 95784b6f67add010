"""What every figure shares: colours that read on light and dark pages, a transparent ground, and image export."""

import re
from typing import Any

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

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
NARROW = {"l": 40, "r": 8, "t": 8, "b": 44}  # margins of a figure in a narrow column
LABEL_HEIGHT = 18  # pixels from one line of annotation text to the next
QUIET_AXIS = {"gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "showline": True, "ticks": "outside"}
QUIET_AXIS |= {"tickcolor": MUTED, "ticklen": 4, "automargin": True}
LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
_FOREIGN = re.compile(r"<(?!/?(?:b|br|sub)>)")
SMALL_LEGEND_ABOVE = LEGEND_ABOVE | {"y": 1.0, "font": {"size": 12}}


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


def as_text(text: str) -> str:
    """Return text that may hold names, which Plotly would else read as HTML: nothing but our own tags stays one.

    Parameters
    ----------
    text : str
        A name, or a text for the hover with a name in it.
    """
    return _FOREIGN.sub("&lt;", text)


def base_figure(height: int, *traces: BaseTraceType, **settings: Any) -> go.Figure:
    """Return a figure in the layout common to all."""
    return go.Figure(traces, base_layout(height, **settings))


def base_layout(height: int, **settings: Any) -> go.Layout:
    """Return the layout common to all figures: transparent, no template, quiet grid, a legend where one is placed."""
    for name in ("xaxis", "yaxis"):
        settings[name] = QUIET_AXIS | settings.get(name, {})
    defaults = {"margin": {"l": 64, "r": 16, "t": 14, "b": 52}, "showlegend": "legend" in settings, "bargap": 0}
    defaults |= {"hovermode": "closest", "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    return go.Layout(**(defaults | settings), height=height)


def series_colour(position: int) -> str:
    """Return the colour of one of several things that are compared: a rule, a model, a module.

    Parameters
    ----------
    position : int
        Its place among them.
    """
    return RULE_COLOURS[position % len(RULE_COLOURS)]


def level_line(figure: go.Figure, value: float, colour: str, dash: str, width: float = 1.6) -> None:
    """Draw a line at a height, from one side of the plot to the other."""
    style = {"color": colour, "width": width, "dash": dash}
    figure.add_shape(type="line", xref="paper", x0=0, x1=1, y0=value, y1=value, line=style)
