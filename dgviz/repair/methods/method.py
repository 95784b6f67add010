"""What a repair method is: how it describes itself, and the three ways in which one changes an update.

A method of matrices (`MatrixMethod`) gives every matrix other singular values; a scaling (`Scaling`) multiplies whole
tensors; any other (`EntryMethod`) decides entry by entry. Torch is imported where something is computed, so that a
command line or a page can describe methods without it.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dgviz.errors import MethodError
from dgviz.rmt.assess import apply_rule
from dgviz.rmt.null import mp_fits
from dgviz.rmt.shrinkage import find_shrinker
from dgviz.rmt.spectrum import Spectrum, norm_ratio
from dgviz.rmt.threshold import DEGENERATE_MEDIAN, RULES, Parameter, Threshold, checked_parameters, having

if TYPE_CHECKING:
    import torch

    from dgviz.repair.plan import RepairPlan

Values = NDArray[np.float64]
Params = Mapping[str, float]
Delta = Callable[[], "torch.Tensor"]
"""Fetches an update's delta, for the few rules that cannot be told from the spectrum."""
Rows = Callable[[slice], "torch.Tensor"]
"""Gives a block of rows of a method's update of one matrix."""
Edit = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Makes the method's update of a block of base and delta; blocks come in order."""

TENTHS = tuple(number / 10 for number in range(11))
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True)
class Strength:
    """A parameter that leads from one end of a method to the other, and where a sweep stops on the way.

    It is the method's, or else the threshold rule's: ``scale`` multiplies tau.
    """

    parameter: str
    points: tuple[float, ...]


TAU = Strength("scale", (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0))


def number(name: str, default: float, maximum: float, description: str) -> Parameter:
    """Return a real parameter that starts at zero."""
    return Parameter(name, default, 0.0, maximum, False, description)


@dataclass(frozen=True)
class Reshaped:
    """A spectrum before and after a method.

    Attributes
    ----------
    s : (p,) float64 array
        Singular values of the update's nonzero block, descending.
    values : (p,) float64 array
        Those of the method's update along the same directions.
    shape : (int, int)
        Rows and columns of the nonzero block.
    threshold : Threshold or None
        The cut, for a method that makes one.
    kept : (p,) float64 array or None
        Those of D*, which a method with a threshold is made from; zeros for what is dropped.
    rank : int or None
        Directions left; None for a method that keeps them all.
    """

    s: Values
    values: Values
    shape: Sequence[int]
    threshold: Threshold | None = None
    kept: Values | None = None
    rank: int | None = None

    @classmethod
    def of_side(cls, spectrum: Spectrum, side: str) -> Self:
        """Return all of an update, for tuned's values, or nothing of it, for base's."""
        s = spectrum.nonzero_s
        return cls(s, s.copy() if side == "tuned" else np.zeros_like(s), spectrum.nonzero_shape)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must know of the cut."""
        return self.threshold.warnings if self.threshold else ()

    @cached_property
    def origin(self) -> str:
        """Whose values the matrix has afterwards: ``"tuned"``, ``"base"``, or else ``"repaired"``."""
        if np.array_equal(self.values, self.s):
            return "tuned"
        return "repaired" if self.values.any() else "base"

    @cached_property
    def norm_kept(self) -> float:
        """Length of the result's update over the update's own; 1 for a zero update."""
        return norm_ratio(self.values, self.s)

    @property
    def removed(self) -> Values:
        """Singular values of what is taken away."""
        return np.abs(self.s - self.values)

    @property
    def mp_fit(self) -> dict[str, float | None]:
        """MP-fit of the tuned update, of the result's and of what is taken away; None where no noise is measured."""
        return mp_fits(self.s, self.values, self.threshold.sigma if self.threshold else 0.0, self.shape)


class Update(Protocol):
    """Both sides of one tensor, entry by entry."""

    name: str
    numel: int
    shape: tuple[int, int, int]
    """Matrices, and rows and columns of each."""

    def blocks(self) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
        """Yield base and delta of every block, in order, flat."""

    def entries(self, block: slice) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return base and delta of some entries, flat."""

    def base_matrix(self, index: int) -> "torch.Tensor":
        """Return one of base's matrices; zeros where an entry is infinite."""


class WholeModel(Protocol):
    """What a method may ask of the whole model before it changes the first tensor."""

    names: Sequence[str]
    numel: int

    def updates(self) -> Iterator[Update]:
        """Yield the update of every tensor that the plan changes; `numel` is their size together."""

    def squares(self) -> tuple[float, float]:
        """Return |D*|^2 and |D|^2 under the plan, summed over all matrices."""

    def tensor_squares(self) -> Mapping[str, tuple[float, float]]:
        """Return |D|^2 and |W0|^2 of every tensor that the plan changes and whose update is not zero."""


class OpenUpdate(Protocol):
    """One matrix's update at hand."""

    delta: "torch.Tensor"

    def factors(self, values: Values, s: Values) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return ``U values`` (m, k) and ``Vh`` (k, n) of the k directions whose values are not zero."""


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
    group : str
        What it works on, in a word that lists put before the title; a control's title says that it is one.
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
        True when its update has D's singular vectors, so that the spectrum tells its figures (`reshape`).
    by_matrix : bool
        True when it decomposes every matrix (`update`); False when it goes through a tensor's entries (`edit`).
    decomposes : bool
        True when it takes singular values of anything: of an update, of the whole model's updates, or of base.
    has_factors : bool
        True when its update of a matrix is a product of two factors, as a LoRA adapter is.
    control : bool
        True when it is there for comparison.
    averages : bool
        True when it averages with base: measured against DG-Hard by the calibration, and offered in its place.
    experimental : bool
        True while nothing shows that it is better than a simpler one: the demo's tables leave it out.
    """

    name: str
    title: str
    formula: str
    citation: str
    group: str
    parameters: tuple[Parameter, ...] = ()
    strengths: tuple[Strength, ...] = ()
    every_tensor = whole_model = thresholded = spectral = by_matrix = has_factors = control = averages = False
    decomposes = False
    experimental = False

    @property
    def prepares(self) -> bool:
        """Whether it takes anything from the whole model."""
        return type(self).prepare is not Method.prepare

    @property
    def seeded(self) -> bool:
        """Whether it draws random numbers."""
        return any(parameter.name == "seed" for parameter in self.parameters)

    @property
    def listed(self) -> str:
        """The title among those of other methods."""
        return self.title if self.control else f"{self.group}: {self.title}"

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
        from dgviz.repair.methods import METHODS

        own = {parameter.name for method in METHODS.values() for parameter in method.parameters}
        for name in params:
            rules = having(name, RULES) if name not in own else ""
            if rules:
                raise MethodError(
                    f"method {self.name!r} has no {name}, which is of the rule {rules}: use --rule-param"
                )
        return checked_parameters(f"method {self.name!r}", self.parameters, params, MethodError, METHODS.values())

    def prepare(self, params: Params, model: WholeModel) -> Any:
        """Return what the method takes from the whole model; the other functions are given it back as `facts`."""

    def reshape(
        self, plan: "RepairPlan", spectrum: Spectrum, facts: Any = None, tensor: str = "", delta: Delta | None = None
    ) -> Reshaped:
        """Return what the method makes of the singular values of one matrix of a tensor."""
        raise MethodError(f"{self.name} changes entries, not singular values: its spectrum has to be computed")

    def unprepared(self, what: str) -> MethodError:
        """Return the error about facts that are not there."""
        return MethodError(f"{self.name} takes its {what} from the whole model, which has not been looked at")


class MatrixMethod(Method):
    """A method that gives every matrix's update other singular values, made from those of D*."""

    group = "Directions"
    spectral = by_matrix = decomposes = True

    def cut(self, plan: "RepairPlan") -> tuple[str, Params, str]:
        """Return rule, parameters and shrinker that make D*."""
        return plan.rule, plan.params, plan.shrinker

    @abstractmethod
    def values(self, params: Params, s: Values, kept: Values) -> Values:
        """Return the singular values of the method's update, from those of D and of what is kept."""

    def choose(self, params: Params, s: Values, kept: Values, tensor: str) -> Values:
        """Return which values are kept, from those of D and of D*; single directions are decided afterwards."""
        return kept

    def rank(self, threshold: Threshold, values: Values) -> int | None:
        """Return how many directions are left; None where that is all of them by construction."""
        return threshold.rank

    def reshape(
        self, plan: "RepairPlan", spectrum: Spectrum, facts: Any = None, tensor: str = "", delta: Delta | None = None
    ) -> Reshaped:
        """Return what the method makes of the singular values of one matrix."""
        s = spectrum.nonzero_s
        threshold, kept = keep(spectrum, *self.cut(plan), delta)
        chosen = self.choose(plan.method_params, s, kept, tensor)
        if plan.directions:
            chosen = plan.directions.applied(chosen, s, tensor)
        values = self.values(plan.method_params, s, chosen)
        rank = int(np.count_nonzero(chosen)) if plan.directions else self.rank(threshold, values)
        return Reshaped(s, values, spectrum.nonzero_shape, threshold, kept, rank)

    def update(self, reshaped: Reshaped, weight: OpenUpdate) -> Rows:
        """Return the method's update of a matrix where that is neither zero nor all of D."""
        left, right = weight.factors(reshaped.values, reshaped.s)
        return lambda rows: left[rows] @ right


class EntryMethod(Method):
    """A method that goes through the entries of a tensor, block by block."""

    group = "Entries"

    def factor(self, params: Params, tensor: str, facts: Any) -> float | None:
        """Return what a whole tensor's update is multiplied by; None where entries differ."""

    @abstractmethod
    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return what is done to the blocks of one tensor."""


class Scaling(EntryMethod):
    """A method that multiplies every tensor's update by one number."""

    group = "Averaging"
    spectral = True

    @abstractmethod
    def factor(self, params: Params, tensor: str, facts: Any) -> float:
        """Return what a tensor's update is multiplied by."""

    def reshape(
        self, plan: "RepairPlan", spectrum: Spectrum, facts: Any = None, tensor: str = "", delta: Delta | None = None
    ) -> Reshaped:
        """Return the scaled singular values."""
        factor, s = self.factor(plan.method_params, tensor, facts), spectrum.nonzero_s
        return Reshaped(s, s.copy() if factor == 1 else factor * s, spectrum.nonzero_shape)

    def update(self, reshaped: Reshaped, weight: OpenUpdate) -> Rows:
        """Return the scaled update of a matrix."""
        factor = float(reshaped.values[0] / reshaped.s[0])
        return lambda rows: factor * weight.delta[rows]

    def edit(self, params: Params, update: Update, facts: Any) -> Edit:
        """Return the multiplication."""
        factor = self.factor(params, update.name, facts)
        return lambda base, delta: delta if factor == 1 else delta * factor


def present(values: Values, s: Values) -> NDArray[np.int64]:
    """Return the places of values that are more than rounding beside the largest of the update's own."""
    return np.flatnonzero(values > DEGENERATE_MEDIAN * np.max(s, initial=0.0))


def keep(
    spectrum: Spectrum, rule: str, params: Params, shrinker: str, delta: Delta | None = None
) -> tuple[Threshold, Values]:
    """Return the cut of a rule and the singular values of D*, zeros for what is dropped.

    Where the noise is not known a rule made from it keeps everything: D* is D.
    """
    threshold = apply_rule(spectrum, rule, params, delta)
    s = spectrum.nonzero_s
    if threshold.whole or (threshold.rank >= np.count_nonzero(s) and shrinker == "hard"):
        return threshold, s.copy()
    values = np.zeros_like(s)
    kept = s[: threshold.rank]
    if shrinker != "hard" and not threshold.degenerate:
        kept = find_shrinker(shrinker).apply(kept, spectrum.nonzero_shape, threshold.sigma)
    values[: threshold.rank] = kept
    return threshold, values
