"""From flags to a verdict, of one weight and of a model."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dgviz.rmt.diagnosis import checks
from dgviz.rmt.diagnosis.advice import advise_verdict
from dgviz.rmt.diagnosis.case import Case
from dgviz.rmt.diagnosis.flags import SEVERITIES, VERDICTS, Diagnosis, Flag
from dgviz.rmt.diagnosis.rounding import check_merged_lora
from dgviz.rmt.rounding_noise import rounding_noise, rounding_returned
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Threshold

_NOTHING = ("unchanged", "all_kept")  # these say that a repair changes nothing


def diagnose(spectrum: Spectrum, threshold: Threshold) -> Diagnosis:
    """Return whether a threshold may be trusted on one matrix, from what is stored of it.

    Parameters
    ----------
    spectrum : Spectrum
        Singular values, shape and summary; without a summary some checks cannot be made, and a flag says so.
    threshold : Threshold
        What the rule found in its nonzero block (`nonzero_s`, `nonzero_shape`).
    """
    case = Case(
        spectrum.nonzero_s,
        spectrum.nonzero_shape,
        tuple(spectrum.shape),
        threshold,
        spectrum.summary,
        rounding_noise(spectrum),
        rounding_returned(spectrum, threshold.rank),
    )
    if unchanged := checks.check_unchanged(case):
        found = [unchanged]
    elif unrelated := checks.check_unrelated(case):
        found = [unrelated]
    elif low_rank := checks.check_median(case) or check_merged_lora(case):
        found = [low_rank, checks.check_trimmed(case), checks.check_measured(case)]
    else:
        found = [check(case) for check in checks.CHECKS]
    flags = sorted((flag for flag in found if flag), key=lambda flag: -SEVERITIES.index(flag.severity))
    sound = (
        f"{threshold.rank} of {case.p} directions stand above a bulk with the spectrum of noise, and no check warns; "
        "whether what is dropped was noise, only scores show."
    )
    verdict, reasons = next(
        (verdict, reasons)
        for verdict, reasons in (
            ("not_applicable", [flag.message for flag in flags if flag.severity == "error"]),
            ("no_effect", [flag.message for flag in flags if flag.check in _NOTHING]),
            ("care", [flag.message for flag in flags if flag.severity == "warn"]),
            ("applies", [flag.message for flag in flags if flag.check == "nothing_kept"] or [sound]),
        )
        if reasons
    )
    kept = threshold.tau < case.optimal_tau  # and with them what lies below DG-Hard's tau: no other rule is needed
    raised = [flag.check for flag in flags if not (flag.check == "near_tau" and kept)]
    return Diagnosis(verdict, tuple(reasons), advise_verdict(verdict, raised, model=False), tuple(flags))


@dataclass(frozen=True)
class WeighedDiagnosis:
    """The diagnosis of one matrix and what it weighs in its model.

    Attributes
    ----------
    name : str
        Of the weight.
    parameters : int
        Entries of its nonzero block.
    energy : float
        Sum of squares of its update.
    diagnosis : Diagnosis
        Its own.
    tower, layer : str, tuple of int
        As its name says (`dgviz.checkpoint.module_path.ModulePath`); empty outside layers.
    """

    name: str
    parameters: int
    energy: float
    diagnosis: Diagnosis
    tower: str = ""
    layer: tuple[int, ...] = ()


def diagnose_model(weights: Iterable[WeighedDiagnosis], config: Mapping[str, Any] | None = None) -> Diagnosis:
    """Return the verdict on a whole model.

    Every matrix weighs the mean of its share of the parameters and its share of the update's energy; one that did not
    change weighs nothing, unless none did. A verdict that holds for half of that weight is the model's; a model of
    which more than a tenth needs care, or is out of the method's reach, is one that needs care.

    Parameters
    ----------
    weights : iterable of WeighedDiagnosis
        All matrices that would be repaired.
    config : mapping, optional
        The model's ``config.json``, by which what did better on models of its kind is advised.

    Raises
    ------
    ValueError
        If there is none.
    """
    everything = list(weights)
    if not everything:
        raise ValueError("a model without a diagnosed matrix has no verdict")
    changed = [weight for weight in everything if weight.energy > 0]
    counted = changed or everything
    parameters = math.fsum(weight.parameters for weight in counted)
    energy = math.fsum(weight.energy for weight in counted) or 1.0
    share = dict.fromkeys(VERDICTS, 0.0)
    for weight in counted:
        own = weight.parameters / parameters
        share[weight.diagnosis.verdict] += 0.5 * (own + (weight.energy / energy if changed else own))
    verdict = next((name for name in ("not_applicable", "no_effect") if share[name] >= 0.5), None)
    if verdict is None:
        verdict = "applies" if share["applies"] >= 0.9 else "care"
    counts = Counter(weight.diagnosis.verdict for weight in counted)
    reasons = [
        f"{counts[name]} of {len(counted)} changed matrices, {100 * share[name]:.0f} % of the model by parameters "
        f"and energy: the rule {VERDICTS[name]}."
        for name in VERDICTS
        if counts[name]
    ]
    if len(everything) > len(changed):
        reasons.append(_unchanged(everything))
    flags = _gathered(counted)
    serious = [flag for flag in flags if flag.severity != "info"]
    # Rows that never occurred are the usual case of an embedding, and worth a word however sound the rest is.
    named = [flag for flag in flags if flag.check == "trimmed"]
    reasons += [flag.message for flag in dict.fromkeys((*(serious or flags)[:3], *named))]
    advice = advise_verdict(verdict, [flag.check for flag in flags], True, config)
    return Diagnosis(verdict, tuple(reasons), advice, tuple(flags))


def _unchanged(weights: list[WeighedDiagnosis]) -> str:
    """Return the sentence about the matrices that fine-tuning did not touch, by layers where whole ones are."""
    still = [weight.name for weight in weights if not weight.energy > 0]
    layers = {(weight.tower, weight.layer[0]) for weight in weights if weight.layer}
    moved = {(weight.tower, weight.layer[0]) for weight in weights if weight.layer and weight.energy > 0}
    sentence = f"{len(still)} of {len(weights)} matrices were not changed by fine-tuning"
    if moved and moved < layers:
        numbers = sorted({number for _, number in layers - moved})
        sentence += f", among them all of layer{'s' if len(numbers) > 1 else ''} {_ranges(numbers)}"
        return sentence + ": frozen, or left out as CoFi-Tune leaves them."
    return sentence + f", such as {still[0]}: frozen, or no target of an adapter."


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as runs: ``0-3, 8``."""
    # A number less its position stays the same throughout a run.
    runs = (list(run) for _, run in groupby(enumerate(numbers), key=lambda at: at[1] - at[0]))
    return ", ".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)


def _gathered(weights: list[WeighedDiagnosis]) -> list[Flag]:
    """Return one flag per check that was raised in several matrices, its value their number; the worst first."""
    raised: dict[tuple[str, str], list[tuple[str, Flag]]] = {}
    for weight in weights:
        for flag in weight.diagnosis.flags:
            raised.setdefault((flag.check, flag.severity), []).append((weight.name, flag))
    flags = []
    for (check, severity), found in raised.items():
        name, example = found[0]
        where = f"{len(found)} of {len(weights)} matrices{_common_rank(check, found)}, such as {name}"
        message = f"{example.title} in {where}: {example.message}"
        flags.append(Flag(check, float(len(found)), None, severity, message, example.reference))
    return sorted(flags, key=lambda flag: (-SEVERITIES.index(flag.severity), -(flag.value or 0)))


def _common_rank(check: str, found: list[tuple[str, Flag]]) -> str:
    """Return the words about a rank that low-rank updates share, as those of one adapter do."""
    if check not in ("low_rank", "merged_lora"):
        return ""
    rank, count = Counter(int(flag.value) for _, flag in found).most_common(1)[0]
    return f" (rank {rank} in {count} of them)"
