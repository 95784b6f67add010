"""Methods at every strength: which plans a sweep is made of, and its result as plain values."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgviz.errors import MethodError
from dgviz.plan import RepairPlan
from dgviz.threshold import find_rule


@dataclass(frozen=True)
class SweepLine:
    """One method along one of its strengths.

    Attributes
    ----------
    label : str
        The plan that is swept, and the parameter where it is not the method's first strength.
    method, parameter : str
        Keys of the registry and of the strength.
    control : bool
        True when the method is there for comparison.
    points : tuple of (float, RepairPlan)
        Values of the parameter, ascending, and the plan at each.
    """

    label: str
    method: str
    parameter: str
    control: bool
    points: tuple[tuple[float, RepairPlan], ...]


def sweep_lines(plans: Iterable[RepairPlan], parameter: str | None = None, every: bool = False) -> list[SweepLine]:
    """Return the lines that a sweep of plans is made of.

    Parameters
    ----------
    plans : iterable of RepairPlan
        What is kept of them is everything but the swept parameter.
    parameter : str, optional
        The strength to sweep; by default the first of each method.
    every : bool
        Whether to sweep each strength of a method, one after the other.

    Raises
    ------
    MethodError
        If a method has no such strength, or the plan's rule does not have the parameter.
    """
    lines = []
    for plan in plans:
        strengths = plan.recipe.strengths
        if parameter is not None:
            strengths = tuple(strength for strength in strengths if strength.parameter == parameter)
            if not strengths:
                known = " or ".join(strength.parameter for strength in plan.recipe.strengths)
                raise MethodError(f"{plan.method} is swept over {known}, not over {parameter!r}")
        for strength in strengths if every else strengths[:1]:
            first = strength is plan.recipe.strengths[0]
            label = plan.label if first else f"{plan.label}, {strength.parameter}"
            points = tuple((float(value), _at(plan, strength.parameter, value)) for value in strength.points)
            lines.append(SweepLine(label, plan.method, strength.parameter, plan.recipe.control, points))
    return lines


def _at(plan: RepairPlan, parameter: str, value: float) -> RepairPlan:
    """Return a plan with one parameter, the method's or else the rule's, set."""
    if parameter in plan.method_params:
        return dataclasses.replace(plan, method_params={**plan.method_params, parameter: value})
    if all(known.name != parameter for known in find_rule(plan.rule).parameters):
        raise MethodError(
            f"{plan.label} is swept over {parameter} of its rule, and rule {plan.rule} has none: name another "
            "--parameter or rule"
        )
    return dataclasses.replace(plan, params={**plan.params, parameter: value})


def sweep_plans(lines: Sequence[SweepLine]) -> list[RepairPlan]:
    """Return every plan of a sweep once, in the order of the lines.

    Parameters
    ----------
    lines : sequence of SweepLine
        Two of them may meet in one plan.
    """
    return list({plan.label: plan for line in lines for _, plan in line.points}.values())


def sweep_result(
    lines: Sequence[SweepLine],
    table: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return a sweep as plain values, one object per line.

    Parameters
    ----------
    lines : sequence of SweepLine
        What was swept.
    table : sequence of mapping
        From `dgviz.comparison.comparison_table`, of every plan.
    scores : mapping of label to scores, optional
        ``{benchmark: {"score", "stderr", "n"}}`` of every plan, where they were scored.

    Returns
    -------
    list of dict
        ``label``, ``method``, ``parameter``, ``control`` and ``points``: ``value``, ``label`` of the plan,
        ``norm_kept``, ``drift``, ``sparsity``, ``distance`` as the comparison has them, and ``scores``.
    """
    rows = {row["label"]: row for row in table}
    result = []
    for line in lines:
        points = []
        for value, plan in line.points:
            row = rows[plan.label]
            measured = {name: row[name] for name in ("norm_kept", "drift", "sparsity", "distance")}
            point = {"value": value, "label": plan.label, **measured}
            points.append(point if scores is None else {**point, "scores": dict(scores[plan.label])})
        known = {name: getattr(line, name) for name in ("label", "method", "parameter", "control")}
        result.append({**known, "points": points})
    return result
