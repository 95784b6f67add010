"""Methods at every strength: which plans a sweep is made of, its result as plain values, and where DG-Hard stands."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgviz.errors import MethodError, ScoresError
from dgviz.repair.methods import find_method
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.threshold import find_rule
from dgviz.scores import Score


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
    """Return the lines that a sweep of plans is made of."""
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
    """Return every plan of a sweep once, in the order of the lines."""
    return list({plan.label: plan for line in lines for _, plan in line.points}.values())


def sweep_result(
    lines: Sequence[SweepLine],
    table: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return a sweep as plain values, one object per line."""
    rows = {row["label"]: row for row in table}

    def point(value: float, label: str) -> dict[str, Any]:
        measured = {name: rows[label][name] for name in ("norm_kept", "drift", "sparsity", "distance")}
        scored = {} if scores is None else {"scores": dict(scores[label])}
        return {"value": value, "label": label, **measured, **scored}

    return [{**vars(line), "points": [point(value, plan.label) for value, plan in line.points]} for line in lines]


def plan_scores(rows: Iterable[tuple[str, str, Score]], target: str) -> dict[str, dict[str, Any]]:
    """Return scores of one's own as a sweep holds them: ``target``, and ``held_out``, the mean of the others."""
    models: dict[str, dict[str, Score]] = {}
    for model, benchmark, score in rows:
        if score.higher_is_better is False or not 0 <= score.value <= 1:
            raise ScoresError(
                f"{model} on {benchmark}: a sweep is drawn of shares of 1, higher being better; got {score.value:g}"
                + (", lower being better" if score.higher_is_better is False else "")
            )
        models.setdefault(model, {})[benchmark] = score
    expected = next(iter(models.values()), {}).keys()
    if target not in expected or len(expected) < 2:
        raise ScoresError(
            f"wanted are scores on {target!r} and on another benchmark; there are {', '.join(expected) or 'none'}"
        )
    found = {}
    for model, scores in models.items():
        if scores.keys() != expected:
            raise ScoresError(f"{model} was scored on {', '.join(scores)}, others on {', '.join(expected)}")
        own = scores[target]
        others = [score for benchmark, score in scores.items() if benchmark != target]
        errors, counts = [score.stderr for score in others], [score.n for score in others]
        found[model] = {
            "held_out": {
                "score": sum(score.value for score in others) / len(others),
                "stderr": None if None in errors else math.hypot(*errors) / len(others),
                "n": None if None in counts else sum(counts),
            },
            "target": {"score": own.value, "stderr": own.stderr, "n": own.n},
        }
    return found


def read_sweep(content: bytes, source: str) -> dict[str, Any]:
    """Return what ``sweep --save`` has written, if it holds scores."""
    try:
        sweep = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ScoresError(f"{source} cannot be read as JSON ({error}); give what sweep --save FILE wrote") from None
    if not isinstance(sweep, dict) or not isinstance(sweep.get("lines"), list):
        raise ScoresError(f"{source} holds no sweep; give what sweep --save FILE wrote")
    try:
        points = [*sweep["ends"].values()]
        for line in sweep["lines"]:
            find_method(line["method"])
            points += [point["scores"] for point in line["points"]]
        for scores in points:
            for benchmark in ("held_out", "target"):
                float(scores[benchmark]["score"])
    except (AttributeError, KeyError, TypeError, ValueError, MethodError):
        raise ScoresError(
            f"{source} was swept without scores; sweep again with --scores PATH --on-task BENCHMARK"
        ) from None
    return sweep


_Found = tuple[Mapping[str, Any], Mapping[str, Any]]  # a line and one of its points


@dataclass(frozen=True)
class Standing:
    """DG-Hard as it is by default, against others at a target score that is equal or higher.

    Attributes
    ----------
    own : mapping
        DG-Hard's point.
    best, control, stronger : (line, point) or None
        With the highest held-out score at a target score of at least DG-Hard's: among the other repairs, among the
        controls, and among all strengths of DG-Hard itself. None where nothing gets there.
    """

    own: Mapping[str, Any]
    best: _Found | None
    control: _Found | None
    stronger: _Found | None


def find_standing(lines: Sequence[Mapping[str, Any]]) -> Standing | None:
    """Return where DG-Hard stands in a sweep with scores, or None where its default is not in it.

    No value is interpolated: a method is taken at the points that were scored.
    """
    points = [(line, point) for line in lines for point in line["points"]]
    own = next((point for line, point in points if line["method"] == "dg_hard" == point["label"]), None)
    if own is None:
        return None
    best: dict[str, _Found] = {}
    for line, point in sorted(points, key=lambda item: -_score(item[1], "held_out")):
        if _score(point, "target") >= _score(own, "target"):
            kind = "dg_hard" if line["method"] == "dg_hard" else "control" if line["control"] else "repair"
            best.setdefault(kind, (line, point))
    return Standing(own, best.get("repair"), best.get("control"), best.get("dg_hard"))


def _score(point: Mapping[str, Any], benchmark: str) -> float:
    return point["scores"][benchmark]["score"]


def standing_words(standing: Standing | None) -> str:
    """Say where DG-Hard stands, whoever wins."""
    if standing is None:
        return "DG-Hard with its own settings is not among the points, so it is not compared."
    own, x, y = standing.own, "target", "held_out"
    reached = f"a target score of at least {_percent(own, x)}, which DG-Hard reaches"
    if standing.best is None:
        text = f"No other repair here has {reached}; DG-Hard keeps a held-out score of {_percent(own, y)}."
    else:
        point = standing.best[1]
        gap, words = _gap(own, point, y)
        relation = "level with" if gap == 0 else "better than" if gap > 0 else "worse than"
        text = (
            f"DG-Hard is {relation} {_named(standing.best)} at {reached}: held-out {_percent(own, y)} against "
            f"{_percent(point, y)} (target {_percent(point, x)}), {words}."
        )
    others = []
    if standing.control:
        others.append(f"the best control ({_named(standing.control)}) keeps {_percent(standing.control[1], y)}")
    if standing.stronger and _score(standing.stronger[1], y) > _score(own, y):
        others.append(f"the best strength of {_named(standing.stronger)} keeps {_percent(standing.stronger[1], y)}")
    return f"{text} At the same target {'; '.join(others)}." if others else text


def _named(found: _Found) -> str:
    """Return a point's method and strength, without the brackets inside."""
    line, point = found
    title = find_method(line["method"]).title.removeprefix("Control: ")
    return f"{title}, {line['parameter']} = {point['value']:g}"


def _percent(point: Mapping[str, Any], benchmark: str) -> str:
    """Return a score in percent with its standard error."""
    row = point["scores"][benchmark]
    spread = "" if row["stderr"] is None else f" ± {100 * row['stderr']:.1f}"
    return f"{100 * row['score']:.1f}{spread} %"


def _gap(own: Mapping[str, Any], other: Mapping[str, Any], benchmark: str) -> tuple[float, str]:
    """Return how far DG-Hard is ahead, and that in words with what chance may do."""
    gap = _score(own, benchmark) - _score(other, benchmark)
    words = f"{100 * abs(gap):.1f} points apart" if gap else "no difference"
    errors = [point["scores"][benchmark]["stderr"] for point in (own, other)]
    if gap and None not in errors and any(errors):
        ratio = abs(gap) / math.hypot(*errors)
        words += f", {ratio:.1f} standard errors" + ("" if ratio >= 2 else ", which may be chance")
    return gap, words
