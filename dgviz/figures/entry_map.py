"""One pooled map of a delta's entries, where a page compares maps instead of moving tau."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sequential

from dgviz.figures.figure4.maps import TOP_CODE, Scale
from dgviz.figures.style import NARROW, base_figure

# Streamlit's theme takes #000001 to #000038 for placeholders of its own, and magma starts with one of them.
_COLOURS = ["#020008", *sequential.Magma[1:]]
_BELOW = {"orientation": "h", "y": -0.1, "yanchor": "top", "thickness": 8, "title": {"text": ""}, "tickangle": 0}


def entry_map(
    codes: NDArray[np.uint8],
    scale: Scale,
    shape: tuple[int, int],
    *,
    dark: bool = True,
    height: int = 380,
    narrow: bool = False,
) -> go.Figure:
    """Return a map of block maxima with its axes in rows and columns of the weight and a colour bar in magnitudes.

    Parameters
    ----------
    codes : (rows, cols) uint8 array
        One map of `dgviz.figures.figure4.maps.EntryPanels`.
    scale : Scale
        What the codes stand for.
    shape : (int, int)
        Rows and columns of the weight.
    dark : bool
        Whether zero is dark, as the page then is; on a light page large values are dark, as in Figure 4.
    height : int
        Height in pixels.
    narrow : bool
        Colour bar below the map and no room for titles beside it, for maps in narrow columns.
    """
    rows, cols = codes.shape
    colours = _COLOURS if dark else ["#fffffb", *_COLOURS[::-1][1:]]
    ticks = scale.ticks()
    ticks = [ticks[0], *ticks[:0:-1][:1]] if narrow else ticks
    heat = go.Heatmap(
        z=codes,
        x0=shape[1] / cols / 2,
        dx=shape[1] / cols,
        y0=shape[0] / rows / 2,
        dy=shape[0] / rows,
        zmin=0,
        zmax=TOP_CODE,
        colorscale=colours,
        colorbar={
            "tickvals": [TOP_CODE * position for position, _ in ticks],
            "ticktext": [text for _, text in ticks],
            "title": {"text": "block max of |entry|", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
        }
        | (_BELOW if narrow else {}),
        hoverinfo="skip",
    )
    axis = {"constrain": "domain", "showgrid": False}
    titles = [{"title": {"text": text}} for text in ("columns (in)", "rows (out)")] if not narrow else [{}, {}]
    return base_figure(
        height,
        heat,
        xaxis=axis | titles[0] | {"range": [0, shape[1]]},
        yaxis=axis | titles[1] | {"range": [shape[0], 0]},
        **({"margin": NARROW} if narrow else {}),
    )
