"""A pooled map as a picture, where a page needs no interaction."""

import math

import numpy as np
from numpy.typing import NDArray
from plotly.colors import sequential, unlabel_rgb


def _table() -> NDArray[np.uint8]:
    """Return 256 colours: mid-grey for exactly zero, then magma without its ends, which vanish on either theme."""
    stops = np.array([_rgb(colour) for colour in sequential.Magma], dtype=np.float64)
    at = np.linspace(0.08, 0.97, 255) * (len(stops) - 1)
    ramp = np.stack([np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)], axis=1)
    return np.vstack([[128, 128, 128], ramp]).round().astype(np.uint8)


def _rgb(colour: str) -> tuple[float, ...]:
    """Return a plotly colour as three numbers from 0 to 255."""
    if colour.startswith("#"):
        return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return unlabel_rgb(colour)


def map_image(codes: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a map of codes as an RGB picture of at least the given size, every block a whole number of pixels.

    Parameters
    ----------
    codes : (rows, cols) uint8 array
        As made by `dgviz.maps.Scale.encode`.
    height, width : int
        Least size in pixels.

    Returns
    -------
    (h, w, 3) uint8 array
        ``h >= height`` and ``w >= width``, multiples of rows and cols.
    """
    rows, cols = codes.shape
    picture = _table()[codes]
    return picture.repeat(math.ceil(height / rows), axis=0).repeat(math.ceil(width / cols), axis=1)
