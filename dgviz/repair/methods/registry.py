"""Repair methods: what can be made of an update after training, behind one registry.

A method is an object in `METHODS`; pages, command line and documentation read the registry. Notation: ``W0`` base,
``W1`` tuned, ``D = W1 - W0``, ``D*`` what DG-Hard keeps of D under the plan's rule and shrinker, ``W0 + D'`` the
method's result. Controls are no repairs: they show what a repair must be better than.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dgviz.errors import MethodError
from dgviz.rmt.threshold import Parameter, checked_parameters


@dataclass(frozen=True)
class Strength:
    """A parameter that leads from one end of a method to the other, and where a sweep stops on the way.

    It is the method's, or else the threshold rule's: ``scale`` multiplies tau.
    """

    parameter: str
    points: tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """A way to make a repaired checkpoint of a pair.

    Attributes
    ----------
    name, title : str
        The registry's key and what a page shows.
    formula : str
        In plain notation.
    citation : str
        Where it comes from.
    parameters : tuple of Parameter
        What can be set.
    strengths : tuple of Strength
        What a sweep varies, the first by default.
    every_tensor : bool
        True when it changes vectors and small tensors too; False when these stay tuned's, bit for bit.
    whole_model : bool
        True when it has to see every tensor before it can change the first.
    thresholded : bool
        True when the plan's rule and shrinker decide D*, which it is made from.
    spectral : bool
        True when its update has D's singular vectors, so that the spectrum tells its figures.
    control : bool
        True when it is there for comparison.
    """

    name: str
    title: str
    formula: str
    citation: str
    parameters: tuple[Parameter, ...]
    strengths: tuple[Strength, ...]
    every_tensor: bool = False
    whole_model: bool = False
    thresholded: bool = False
    spectral: bool = False
    control: bool = False

    @property
    def seeded(self) -> bool:
        """Whether it draws random numbers."""
        return any(parameter.name == "seed" for parameter in self.parameters)

    @property
    def scope(self) -> str:
        """What it changes, in words."""
        return "every floating-point tensor" if self.every_tensor else "matrices; the rest stays tuned's, bit for bit"

    def changed(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return the parameters that are not at their defaults: what a link, a label or a command has to say."""
        usual = self.checked({})
        return {name: value for name, value in params.items() if value != usual[name]}

    def checked(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return all parameters with defaults filled in."""
        others = METHODS.values()
        return checked_parameters(f"method {self.name!r}", self.parameters, params, MethodError, others)


def _number(name: str, default: float, maximum: float, description: str, minimum: float = 0.0) -> Parameter:
    """Return a real parameter that starts at zero."""
    return Parameter(name, default, minimum, maximum, False, description)


_DG_HARD = "Spectral Unforgetting (DG-Hard), arXiv 2605.20296"
_SEED = Parameter("seed", 0, 0, 2**31, True, "seed of the random mask")
_TENTHS = tuple(number / 10 for number in range(11))
_SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
_TAU_POINTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)

_METHODS = (
    Method(
        "dg_hard",
        "DG-Hard",
        "W0 + alpha D*, D* = the directions of D that the rule keeps, their sizes set by the shrinker",
        _DG_HARD,
        (_number("alpha", 1.0, 2.0, "multiplies what is kept"),),
        (Strength("scale", _TAU_POINTS), Strength("alpha", _TENTHS)),
        thresholded=True,
        spectral=True,
    ),
    Method(
        "rank_r",
        "Rank truncation",
        "W0 + the r strongest directions of D",
        "Eckart & Young 1936, doi 10.1007/BF02288367",
        (Parameter("rank", 16, 0, 2**31, True, "directions kept of every matrix"),),
        (Strength("rank", (0, 1, 2, 4, 8, 16, 32, 64, 96, 128)),),
        spectral=True,
    ),
    Method(
        "wise_ft",
        "WiSE-FT",
        "(1 - alpha) W0 + alpha W1",
        "Wortsman et al. 2022, arXiv 2109.01903",
        (_number("alpha", 0.5, 2.0, "share of tuned"),),
        (Strength("alpha", _TENTHS),),
        every_tensor=True,
        spectral=True,
    ),
    Method(
        "lines",
        "LiNeS",
        "W0 + D (alpha + (last - alpha) l / (L - 1)) in block l of L; alpha before the first, last behind the end",
        "Wang et al. 2025, arXiv 2410.17146",
        (
            _number("alpha", 0.5, 2.0, "factor of the first block"),
            _number("last", 1.0, 2.0, "factor of the last block"),
        ),
        (Strength("alpha", _TENTHS),),
        spectral=True,
    ),
    Method(
        "magnitude",
        "Magnitude pruning",
        "W0 + D where |D| is above the smallest floor((1 - density) n) of its tensor, else W0; ties at the cut go",
        "as in Yu et al. 2024, arXiv 2311.03099, released code",
        (_number("density", 0.2, 1.0, "share of entries kept"),),
        (Strength("density", _SHARES),),
    ),
    Method(
        "ties",
        "TIES, over the whole model",
        "W0 + scale D where |D| is at least the (n - floor(density n))-th smallest of all matrices, else W0; "
        "with one fine-tune the election of signs changes nothing",
        "Yadav et al. 2023, arXiv 2306.01708",
        (
            _number("density", 0.2, 1.0, "share of entries kept"),
            _number("scale", 1.0, 5.0, "multiplies what is kept"),
        ),
        (Strength("density", _SHARES),),
        whole_model=True,
    ),
    Method(
        "ties_per_tensor",
        "TIES, tensor by tensor",
        "W0 + scale D at the max(1, floor(density n)) largest |D| of each tensor, the first of equal ones, else W0",
        "Yadav et al. 2023, arXiv 2306.01708, as mergekit does it, arXiv 2403.13257",
        (
            _number("density", 0.2, 1.0, "share of entries kept"),
            _number("scale", 1.0, 5.0, "multiplies what is kept"),
        ),
        (Strength("density", _SHARES),),
    ),
    Method(
        "dare",
        "DARE",
        "W0 + D m / (1 - p), m = 0 with probability p for every entry, else 1",
        "Yu et al. 2024, arXiv 2311.03099",
        (_number("p", 0.9, 0.999, "share of entries dropped"), _SEED),
        (Strength("p", (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)),),
    ),
    Method(
        "fapm",
        "FAPM",
        "W0 + D at the floor(density n) largest |D| - mean|W0| |D| / |W0| of each tensor, else W0",
        "EMNLP 2025, arXiv 2509.08255",
        (_number("density", 0.1, 1.0, "share of entries kept"),),
        (Strength("density", _SHARES),),
        every_tensor=True,
    ),
    Method(
        "norm_matched",
        "Control: as long as D*",
        "W0 + D |D*| / |D| in every matrix: WiSE-FT with DG-Hard's length",
        "control; after Wortsman et al. 2022, arXiv 2109.01903",
        (),
        (Strength("scale", _TAU_POINTS),),
        thresholded=True,
        spectral=True,
        control=True,
    ),
    Method(
        "norm_matched_global",
        "Control: as long as D*, one factor",
        "W0 + D |D*| / |D|, both lengths over all matrices together",
        "control; after Wortsman et al. 2022, arXiv 2109.01903",
        (),
        (Strength("scale", _TAU_POINTS),),
        whole_model=True,
        thresholded=True,
        spectral=True,
        control=True,
    ),
    Method(
        "complement",
        "Control: what DG-Hard drops",
        "W0 + (D - D*)",
        "control",
        (),
        (Strength("scale", _TAU_POINTS),),
        thresholded=True,
        spectral=True,
        control=True,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}


def find_method(name: str) -> Method:
    """Return the method of that name."""
    if name not in METHODS:
        raise MethodError(f"no repair method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
