"""A pair of one weight at the size of the paper's Figure 4, made on request: 100 MB on either side.

The update is noise of unit variance whose columns are scaled by ``exp(0.15 N(0, 1))``, so that it follows the
Marchenko-Pastur law about as well as a real weight does (score near 94.7, not 99.8), plus 30 directions whose
strengths run geometrically from 1.6 to 12 times the edge of the noise.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dgviz.demo.packaged import new_directory
from dgviz.rmt.law import bulk_edge

SHAPE = (8192, 3072)
SPIKES = 30
WEIGHT = "model.layers.0.mlp.down_proj.weight"
SEED = 1
"""Chosen so that DG-Hard keeps exactly the 30 planted directions; other seeds keep up to 33 (scaled columns)."""

_COLUMN_SPREAD = 0.15
_SPIKE_RANGE = (1.6, 12.0)
_BASE_STD = 2.0


def write_figure4_pair(
    directory: str | Path, seed: int = SEED, shape: tuple[int, int] = SHAPE, spikes: int = SPIKES
) -> dict[str, Path]:
    """Write a base and a tuned checkpoint of one weight with planted directions; return where they are.

    The base has standard deviation 2, about that of the update, so that tuned is seen to descend from it (correlation
    0.8), and ``tuned - base`` in float32 gives back the update to 1e-7 of its norm.

    Parameters
    ----------
    directory : str or Path
        New or empty.
    seed : int
        Of base, noise, scales and directions.
    shape : (int, int)
        Rows and columns of the weight.
    spikes : int
        Number of planted directions.

    Returns
    -------
    dict
        ``base`` and ``tuned``, each a directory with ``model.safetensors`` (float32). Without a ``config.json``: this
        is one matrix, not a model.

    Raises
    ------
    ValueError
        If there are more spikes than directions.
    ExportError
        If the directory is not empty or cannot be written.
    """
    from safetensors.numpy import save_file

    if not 0 <= spikes <= min(shape):
        raise ValueError(f"a weight of shape {tuple(shape)} has {min(shape)} directions; got {spikes} spikes")
    generator = np.random.default_rng(seed)
    base = generator.standard_normal(shape, dtype=np.float32)
    base *= np.float32(_BASE_STD)
    with new_directory(directory) as unfinished:
        for side in ("base", "tuned"):
            if side == "tuned":
                base += figure4_delta(generator, shape, spikes)
            (unfinished / side).mkdir()
            save_file({WEIGHT: base}, unfinished / side / "model.safetensors", metadata={"format": "pt"})
    return {side: Path(directory).expanduser() / side for side in ("base", "tuned")}


def figure4_delta(generator: np.random.Generator, shape: tuple[int, int], spikes: int) -> NDArray[np.float32]:
    """Return noise with scaled columns plus planted directions."""
    rows, columns = shape
    delta = generator.standard_normal(shape, dtype=np.float32)
    delta *= np.exp(_COLUMN_SPREAD * generator.standard_normal(columns)).astype(np.float32)
    strengths = bulk_edge(1.0, shape) * np.geomspace(*_SPIKE_RANGE, spikes)
    left = np.linalg.qr(generator.standard_normal((rows, spikes)))[0]
    right = np.linalg.qr(generator.standard_normal((columns, spikes)))[0]
    delta += ((left * strengths) @ right.T).astype(np.float32)
    return delta
