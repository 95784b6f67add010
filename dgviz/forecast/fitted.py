"""How scales fitted by ``dgviz fit`` stand against averaging with base, base by base."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import orjson

FITS_TABLE = Path(__file__).parent / "fits.json"
DEEP = 6
"""Layers from which on a base counts as deep."""
_KEEP = "95"  # percent of the target that is kept
_FEWEST = 4  # bases
_LAYERS = "num_hidden_layers", "n_layer", "num_layers"


@dataclass(frozen=True)
class FittedBase:
    """One base, its fine-tunes and several seeds of the texts together.

    Attributes
    ----------
    base : str
        What it is called.
    architecture : str
        The class that transformers loads it as.
    layers, parameters : int
        Its size.
    pairs, seeds : int
        How many fine-tunes were fitted, and how often each.
    ahead : mapping of str to float
        By percent of the target to be kept: healing by likelihood above that of WiSE-FT at the same true target, in
        points, the mean over pairs and seeds, with one scale a tensor.
    """

    base: str
    architecture: str
    layers: int
    parameters: int
    pairs: int
    seeds: int
    ahead: Mapping[str, float]


@dataclass(frozen=True)
class Lead:
    """How far fits are ahead of averaging on several bases, each of which counts once.

    Attributes
    ----------
    bases : int
        How many there are.
    better : int
        On how many fits are ahead.
    mean, stderr : float
        In points.
    """

    bases: int
    better: int
    mean: float
    stderr: float

    @property
    def certain(self) -> bool:
        """Whether fits are ahead beyond the errors (Student's t, 95 %), on enough bases to tell."""
        if self.bases < _FEWEST:
            return False
        from scipy.special import stdtrit  # a tenth of a second

        return self.mean >= float(stdtrit(self.bases - 1, 0.975)) * self.stderr


@functools.cache
def read_fits(path: Path = FITS_TABLE) -> tuple[FittedBase, ...]:
    """Return the bases on which fits were judged, by default those that come with the package."""
    return tuple(FittedBase(**row) for row in orjson.loads(path.read_bytes()))


def lead_of(bases: Sequence[FittedBase], keep: str = _KEEP) -> Lead:
    """Return how fits stand on some bases."""
    ahead = [base.ahead[keep] for base in bases]
    spread = stdev(ahead) / math.sqrt(len(ahead)) if len(ahead) > 1 else math.inf
    return Lead(len(ahead), sum(value > 0 for value in ahead), fmean(ahead) if ahead else 0.0, spread)


def alike(config: Mapping[str, Any], bases: Sequence[FittedBase] | None = None) -> list[FittedBase]:
    """Return the deep bases of a deep model's own architecture: on one of them fits did well, on others not."""
    layers = next((config[name] for name in _LAYERS if isinstance(config.get(name), int)), 0)
    architectures = config.get("architectures")
    if layers < DEEP or not isinstance(architectures, list):
        return []
    known = read_fits() if bases is None else bases
    return [base for base in known if base.layers >= DEEP and base.architecture in architectures]


def fits_lead(config: Mapping[str, Any], bases: Sequence[FittedBase] | None = None) -> bool:
    """Return whether fits did better than averaging on bases of a model's kind, beyond the errors."""
    return lead_of(alike(config, bases)).certain


def fits_words(config: Mapping[str, Any], bases: Sequence[FittedBase] | None = None) -> str:
    """Return how fits stand against averaging on bases of a model's kind, and on the others."""
    known = read_fits() if bases is None else bases
    own = alike(config, known)
    found, others = lead_of(own), lead_of([base for base in known if base not in own])
    counted = f"all {found.bases}" if found.better == found.bases else f"{found.better} of {found.bases}"
    sizes = sorted(base.parameters / 1e6 for base in own)
    return (
        f"on {counted} bases of this architecture ({sizes[0]:.0f} to {sizes[-1]:.0f} million parameters) it healed "
        f"more than WiSE-FT at the same target, by {found.mean:.1f} ± {found.stderr:.1f} points at {_KEEP} %; on "
        f"{others.bases} others, flatter or of other architectures, by {others.mean:.1f} ± {others.stderr:.1f}"
    )
