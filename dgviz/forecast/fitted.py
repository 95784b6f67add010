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
"""Layers from which on a model is one of those that fits are told of; on bases of two they bring nothing."""
_KEEP = "95"  # percent of the target that is kept
_FEWEST = 4  # bases
_LAYERS = "num_hidden_layers", "n_layer", "num_layers"
_SPOKEN = "ForCausalLM", "LMHeadModel", "ForMaskedLM"


@dataclass(frozen=True)
class FittedBase:
    """One base, its fine-tunes and several seeds of the texts together.

    Attributes
    ----------
    base : str
        What it is called.
    layers, parameters : int
        Its size.
    pairs, seeds : int
        How many fine-tunes were fitted, and how often each.
    ahead : mapping of str to float
        By percent of the target to be kept: healing by likelihood above that of WiSE-FT at the same true target, in
        points, the mean over pairs and seeds, with one scale a tensor.
    """

    base: str
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
        """Whether fits are ahead by two standard errors, on enough bases to tell."""
        return self.bases >= _FEWEST and self.mean >= 2 * self.stderr


@functools.cache
def read_fits(path: Path = FITS_TABLE) -> tuple[FittedBase, ...]:
    """Return the bases on which fits were judged, by default those that come with the package."""
    return tuple(FittedBase(**row) for row in orjson.loads(path.read_bytes()))


def lead_of(bases: Sequence[FittedBase], deep: bool, keep: str = _KEEP) -> Lead:
    """Return how fits stand on bases of at least `DEEP` layers, or on the others."""
    ahead = [base.ahead[keep] for base in bases if (base.layers >= DEEP) == deep]
    spread = stdev(ahead) / math.sqrt(len(ahead)) if len(ahead) > 1 else math.inf
    return Lead(len(ahead), sum(value > 0 for value in ahead), fmean(ahead) if ahead else 0.0, spread)


def fits_lead(config: Mapping[str, Any], bases: Sequence[FittedBase] | None = None) -> bool:
    """Return whether a model is of the kind on which fits did better than averaging: a deep language model."""
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    layers = next((config[name] for name in _LAYERS if isinstance(config.get(name), int)), 0)
    spoken = any(str(name).endswith(_SPOKEN) for name in names)
    return spoken and layers >= DEEP and lead_of(read_fits() if bases is None else bases, deep=True).certain


def fits_words(bases: Sequence[FittedBase] | None = None) -> str:
    """Return how fits stand against averaging: ``on N of M bases ...``."""
    known = read_fits() if bases is None else bases
    deep, flat = lead_of(known, deep=True), lead_of(known, deep=False)
    sizes = [base.parameters / 1e6 for base in known if base.layers >= DEEP]
    counted = f"all {deep.bases}" if deep.better == deep.bases else f"{deep.better} of {deep.bases}"
    side = "more" if flat.mean >= 0 else "less"
    return (
        f"on {counted} bases of {DEEP} layers ({min(sizes):.0f} to {max(sizes):.0f} million parameters) it healed "
        f"more than WiSE-FT at the same target, by {deep.mean:.1f} ± {deep.stderr:.1f} points at {_KEEP} %; on "
        f"{flat.bases} bases of 2 layers it was {abs(flat.mean):.1f} ± {flat.stderr:.1f} points {side}"
    )
