"""Threshold rules side by side over a whole model, from stored spectra: nothing is decomposed, no tensor is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgviz.analysis.model_spectra import Assessment, StoredWeight, assess
from dgviz.command import Command
from dgviz.errors import ThresholdError
from dgviz.repair.methods.method import Reshaped
from dgviz.repair.plan import RepairPlan, read_plan
from dgviz.rmt.assess import needs_delta
from dgviz.rmt.law import mp_fit
from dgviz.rmt.shrinkage import find_shrinker
from dgviz.rmt.spectrum import norm_ratio
from dgviz.rmt.threshold import find_rule
from dgviz.words import exact_number

MULTIPLIERS: NDArray[np.float64] = 2.0 ** (np.arange(-32, 33) / 16)
"""Factors on tau of `TauCurve`: 0.25 to 4 in 64 equal steps of the logarithm, 1 among them."""

_QUANTILES = {"low": 0, "p5": 5, "q1": 25, "median": 50, "q3": 75, "p95": 95, "high": 100}


@dataclass(frozen=True, eq=False)
class ShrunkAssessment(Assessment):
    """What a rule and a shrinker make of one weight: `rank` directions have something left, `energy_kept` is theirs.

    Attributes
    ----------
    values : (p,) float64 array
        Singular values of the nonzero block after the repair.
    """

    values: NDArray[np.float64]

    @classmethod
    def of(cls, row: Assessment, values: NDArray[np.float64]) -> "ShrunkAssessment":
        """Return a matrix of whose nonzero block these singular values are left."""
        rank, kept = int(np.count_nonzero(values)), norm_ratio(values, row.spectrum.nonzero_s) ** 2
        return cls(row.weight, row.spectrum, row.threshold, rank, kept, values)

    @cached_property
    def residual_fit(self) -> float | None:
        """MP-fit of what is taken away, in percent."""
        taken = np.abs(self.spectrum.nonzero_s - self.values)
        return self._fit_of(taken)

    @cached_property
    def residual_own_fit(self) -> float | None:
        """The same over the values that something is taken from."""
        taken = np.abs(self.spectrum.nonzero_s - self.values)
        return self._fit_of(taken[taken > 0])

    def _fit_of(self, taken: NDArray[np.float64]) -> float | None:
        known = self.threshold.sigma > 0 and taken.any()
        return mp_fit(taken, self.threshold.sigma, self.spectrum.nonzero_shape) if known else None


@dataclass(frozen=True, eq=False)
class ModelCut:
    """What a rule, with or without a shrinker, makes of every matrix of a model.

    Attributes
    ----------
    plan : RepairPlan
        Rule, parameters and shrinker.
    rows : tuple of Assessment
        Matrix by matrix.
    """

    plan: RepairPlan
    rows: tuple[Assessment, ...]

    @property
    def label(self) -> str:
        """The rule and its settings as `read_rule` reads them: ``energy:fraction=0.8``."""
        return rule_label(self.plan)


@dataclass(frozen=True)
class RuleTotals:
    """One rule over the whole model.

    Attributes
    ----------
    label, rule, shrinker : str
        What was applied; `label` with its settings.
    params : mapping
        All parameters of the rule.
    matrices, directions, parameters : int
        Counted over the model.
    rank : int
        Directions kept, summed.
    kept_parameters : int
        ``rank (m + n)`` summed: numbers needed to write the kept parts as two factors each.
    kept_share : float
        `kept_parameters` over `parameters`; above 1 where factors are larger than the matrices.
    energy_kept : float
        Share of the whole update's squared norm.
    residual_fit : float or None
        Mean MP-fit of what is taken away, zeros included, weighted by the matrices' entries, over those with one.
    residual_own_fit, noise_fit : float or None
        The same over the values taken away alone, and what noise of the shapes of these matrices scores.
    residual_matrices : int
        How many have one.
    emptied, unchanged : int
        Matrices of whose update nothing is kept, and of which every direction is.
    rank_share : mapping
        Distribution, over the matrices that training has changed, of kept directions over all p of them: ``low``,
        ``p5``, ``q1``, ``median``, ``q3``, ``p95``, ``high``.
    lowest, highest : str
        Labels of the matrices with the least and the largest share.
    """

    label: str
    rule: str
    shrinker: str
    params: Mapping[str, float]
    matrices: int
    directions: int
    parameters: int
    rank: int
    kept_parameters: int
    kept_share: float
    energy_kept: float
    residual_fit: float | None
    residual_own_fit: float | None
    noise_fit: float | None
    residual_matrices: int
    emptied: int
    unchanged: int
    rank_share: Mapping[str, float]
    lowest: str
    highest: str


@dataclass(frozen=True, eq=False)
class Agreement:
    """How often rules decide alike, rule by rule.

    Attributes
    ----------
    directions : (k, k) float64 array
        Share of all directions of the model that both keep or both drop.
    same_rank : (k, k) float64 array
        Share of matrices in which both keep the same number.
    """

    directions: NDArray[np.float64]
    same_rank: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TauCurve:
    """What a rule keeps of the whole model when its tau is multiplied.

    Attributes
    ----------
    rank, kept_parameters : (65,) int64 arrays
        Summed over the matrices, at every one of `MULTIPLIERS`.
    energy_kept : (65,) float64 array
        Share of the whole update's squared norm.
    parameters : int
        Entries of all matrices.
    """

    rank: NDArray[np.int64]
    kept_parameters: NDArray[np.int64]
    energy_kept: NDArray[np.float64]
    parameters: int


def read_rule(text: str) -> RepairPlan:
    """Return the rule that a short text names."""
    plan = read_plan(f"dg_hard:rule={text.strip()}")
    if plan.method_params != plan.recipe.checked({}):
        raise ThresholdError(f"{text!r} sets a parameter of a method; a rule takes its own parameters and a shrinker")
    return plan


def rule_label(plan: RepairPlan) -> str:
    """Return a plan's rule, settings and shrinker in the words of `read_rule`."""
    changed = find_rule(plan.rule).changed(plan.params)
    parts = [plan.rule, *(f"{name}={exact_number(value)}" for name, value in changed.items())]
    return ":".join(parts + ([f"shrinker={plan.shrinker}"] if plan.shrinker != "hard" else []))


def cut_model(
    matrices: Sequence[StoredWeight], plan: RepairPlan, rows: Sequence[Assessment] | None = None
) -> ModelCut:
    """Return what a rule makes of every matrix."""
    refuse_unknown(matrices, plan)
    owns = [plan.at(matrix.weight.tensor, matrix.weight.index) for matrix in matrices]
    rows = rows or [
        assess(matrix, own.rule, own.params, own.directions) for matrix, own in zip(matrices, owns, strict=True)
    ]
    return ModelCut(plan, tuple(_shrink(row, own) for row, own in zip(rows, owns, strict=True)))


def refuse_unknown(matrices: Sequence[StoredWeight], plan: RepairPlan) -> None:
    """Refuse a rule that needs the weights themselves where no scan has stored what it found in them."""
    unknown = []
    for matrix in matrices:
        own = plan.at(matrix.weight.tensor, matrix.weight.index)
        if not own.keep and needs_delta(matrix.spectrum, own.rule, own.params):
            unknown.append(matrix.weight.name)
            plan = own
    if not unknown:
        return
    settings = {k: v for k, v in find_rule(plan.rule).changed(plan.params).items() if k != "scale"}
    command = Command("scan", base="BASE", tuned="TUNED", rule=plan.rule, rule_param=settings)
    raise ThresholdError(
        f"rule {plan.rule!r} cannot be told from singular values, and no scan has stored what it finds in "
        f"{len(unknown)} of {len(matrices)} matrices, such as {unknown[0]}; first run: {command}"
    )


def _shrunk(row: Assessment, plan: RepairPlan) -> NDArray[np.float64] | None:
    """Return the singular values of the nonzero block after the plan's shrinker; None where nothing is shrunk."""
    if plan.shrinker == "hard" or row.threshold.degenerate or not row.threshold.sigma > 0:
        return None
    stored = row.spectrum
    return find_shrinker(plan.shrinker).apply(stored.nonzero_s, stored.nonzero_shape, row.threshold.sigma)


def _shrink(row: Assessment, plan: RepairPlan) -> Assessment:
    """Return a matrix after the plan's shrinker, or as the side that it keeps."""
    values = Reshaped.of_side(row.spectrum, plan.keep).values if plan.keep else _shrunk(row, plan)
    if values is None:
        return row
    if not plan.keep:
        values[row.threshold.rank :] = 0.0
        values = plan.directions.applied(values, row.spectrum.nonzero_s, row.weight.name)
    return ShrunkAssessment.of(row, values)


def sum_up(cut: ModelCut) -> RuleTotals:
    """Return what a rule makes of the whole model."""
    rows = cut.rows
    trained = [row for row in rows if not row.frozen] or rows
    shares = [row.rank_share for row in trained]
    energy = np.array([row.spectrum.energy for row in rows])
    energy_kept = np.array([row.energy_kept for row in rows]) * energy
    fitted = [row for row in rows if row.residual_fit is not None]
    parameters, kept = sum(row.weight.parameters for row in rows), sum(row.kept_parameters for row in rows)
    return RuleTotals(
        label=cut.label,
        rule=cut.plan.rule,
        shrinker=cut.plan.shrinker,
        params=dict(cut.plan.params),
        matrices=len(rows),
        directions=sum(row.spectrum.s.size for row in rows),
        parameters=parameters,
        rank=sum(row.rank for row in rows),
        kept_parameters=kept,
        kept_share=kept / parameters,
        energy_kept=float(energy_kept.sum() / energy.sum()) if energy.sum() > 0 else 1.0,
        residual_fit=_weighted(fitted, "residual_fit"),
        residual_own_fit=_weighted(fitted, "residual_own_fit"),
        noise_fit=_weighted(fitted, "noise_fit"),
        residual_matrices=len(fitted),
        emptied=sum(row.emptied for row in rows),
        unchanged=sum(row.unchanged for row in rows),
        rank_share={name: float(np.percentile(shares, at)) for name, at in _QUANTILES.items()},
        lowest=trained[int(np.argmin(shares))].weight.name,
        highest=trained[int(np.argmax(shares))].weight.name,
    )


def _weighted(rows: Sequence[Assessment], name: str) -> float | None:
    """Return the mean of a figure, weighted by the matrices' entries, over those that have it."""
    known = [(value, row.weight.parameters) for row in rows if (value := getattr(row, name)) is not None]
    return float(np.average([value for value, _ in known], weights=[size for _, size in known])) if known else None


def compare_cuts(cuts: Sequence[ModelCut]) -> Agreement:
    """Return how often rules decide alike. Every rule keeps the first directions, two differ in the ranks between."""
    ranks = np.array([[row.rank for row in cut.rows] for cut in cuts])
    directions = sum(row.spectrum.s.size for row in cuts[0].rows)
    apart = np.abs(ranks[:, None, :] - ranks[None, :, :])
    return Agreement(1 - apart.sum(axis=2) / directions, (apart == 0).mean(axis=2))


def scaled_plan(plan: RepairPlan, multiplier: float) -> RepairPlan | None:
    """Return a plan with its tau multiplied; None for a rule whose tau no parameter multiplies."""
    name = "tau" if plan.rule == "manual" else "scale"
    if name not in plan.params:
        return None
    return replace(plan, params={**plan.params, name: plan.params[name] * multiplier})


def trace_tau(cut: ModelCut) -> TauCurve | None:
    """Return what is kept at every one of `MULTIPLIERS`; None for a rule whose tau no parameter multiplies."""
    if scaled_plan(cut.plan, 1.0) is None:
        return None
    rank, kept = np.zeros((2, MULTIPLIERS.size), dtype=np.int64)
    energy = np.zeros(MULTIPLIERS.size)
    for row in cut.rows:
        s = row.spectrum.nonzero_s
        taus = row.threshold.tau * MULTIPLIERS
        if row.threshold.whole:  # whatever multiplies a tau that says nothing
            rank += row.threshold.rank
            kept += row.threshold.rank * sum(row.spectrum.shape)
            energy += row.spectrum.energy
            continue
        ranks = s.size - np.searchsorted(s[::-1], taus, side="right")
        shrunk = _shrunk(row, cut.plan)
        values = s if shrunk is None else shrunk
        ranks = np.minimum(ranks, np.count_nonzero(values))
        rank += ranks
        kept += ranks * sum(row.spectrum.shape)
        energy += np.concatenate([[0.0], np.cumsum(values**2)])[ranks]
    whole = sum(row.spectrum.energy for row in cut.rows)
    share = np.minimum(energy / whole, 1.0) if whole > 0 else np.ones(MULTIPLIERS.size)
    return TauCurve(rank, kept, share, sum(row.weight.parameters for row in cut.rows))


def comparison_report(cuts: Sequence[ModelCut]) -> dict[str, Any]:
    """Return the comparison as plain values: a row per rule, and the agreement of every two."""
    agreement = compare_cuts(cuts)
    return {
        "rules": [vars(sum_up(cut)) for cut in cuts],
        "agreement": {
            "labels": [cut.label for cut in cuts],
            "directions": agreement.directions.tolist(),
            "same_rank": agreement.same_rank.tolist(),
        },
    }
