"""The command that makes an output, for pages, model cards and reports alike."""

from collections.abc import Mapping
from typing import Any

from dgviz.repair.plan import RepairPlan
from dgviz.rmt.threshold import find_rule


def repair_command(
    base: str,
    tuned: str,
    out: str,
    repair: RepairPlan,
    format: str = "full",
    options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return the command that does what a plan says; what is as by default is left out.

    Parameters
    ----------
    base, tuned, out : str
        Inputs and output, as they are to be typed.
    repair : RepairPlan
        Rule and output dtype.
    format : str
        One of `dgviz.export.FORMATS`.
    options : mapping, optional
        Further long options without dashes; True for a flag, empty ones are left out.
    """
    command = ["python", "-m", "dgviz", "repair", base, tuned, out]
    if repair.rule != "dg_hard":
        command += ["--rule", repair.rule]
    command += _given("--rule-param", find_rule(repair.rule).changed(repair.params))
    if repair.method != "dg_hard":
        command += ["--method", repair.method]
    command += _given("--param", repair.recipe.changed(repair.method_params))
    if repair.shrinker != "hard":
        command += ["--shrinker", repair.shrinker]
    known = {"include": repair.include, "exclude": repair.exclude}
    known |= {"dtype": "" if repair.dtype == "auto" else repair.dtype, "format": "" if format == "full" else format}
    for name, value in {**known, **(options or {})}.items():
        if value is True:
            command.append(f"--{name}")
        elif value:
            command += [f"--{name}", str(value)]
    return command


def _given(option: str, params: Mapping[str, float]) -> list[str]:
    """Return an option for every parameter, its value short where that is exact."""
    words = []
    for name, value in params.items():
        words += [option, f"{name}={value:g}" if float(f"{value:g}") == value else f"{name}={value!r}"]
    return words
