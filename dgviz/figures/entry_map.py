"""One pooled map of a delta's entries, where a page compares maps instead of moving tau."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sequential

from dgviz.figures.style import base_layout
from dgviz.maps import TOP_CODE, Scale

# Streamlit's theme takes #000001 to #000038 for placeholders of its own, and magma starts with one of them.
_COLOURS = ["#020008", *sequential.Magma[1:]]


def entry_map(
    codes: NDArray[np.uint8], scale: Scale, shape: tuple[int, int], *, dark: bool = True, height: int = 380
) -> go.Figure:
    """Return a map of block maxima with its axes in rows and columns of the weight and a colour bar in magnitudes.

    Parameters
    ----------
    codes : (rows, cols) uint8 array
        One map of `dgviz.maps.EntryPanels`.
    scale : Scale
        What the codes stand for.
    shape : (int, int)
        Rows and columns of the weight.
    dark : bool
        Whether zero is dark, as the page then is; on a light page large values are dark, as in Figure 4.
    height : int
        Height in pixels.
    """
    rows, cols = codes.shape
    colours = _COLOURS if dark else ["#fffffb", *_COLOURS[::-1][1:]]
    ticks = scale.ticks()
    heat = go.Heatmap(
        z=codes,
        x0=shape[1] / cols / 2,
        dx=shape[1] / cols,
        y0=shape[0] / rows / 2,
        dy=shape[0] / rows,
        zmin=0,
        zmax=TOP_CODE,
        colorscale=[[at / (len(colours) - 1), colour] for at, colour in enumerate(colours)],
        colorbar={
            "tickvals": [TOP_CODE * position for position, _ in ticks],
            "ticktext": [text for _, text in ticks],
            "title": {"text": "block max of |entry|", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
        },
        hoverinfo="skip",
    )
    axis = {"constrain": "domain", "showgrid": False}
    return go.Figure(
        heat,
        base_layout(
            height,
            xaxis=axis | {"title": {"text": "columns (in)"}, "range": [0, shape[1]]},
            yaxis=axis | {"title": {"text": "rows (out)"}, "range": [shape[0], 0]},
        ),
    )
