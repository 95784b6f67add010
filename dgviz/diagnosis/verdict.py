"""From flags to a verdict, of one weight and of a model."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dgviz.diagnosis import checks
from dgviz.diagnosis.case import Case
from dgviz.diagnosis.flags import SEVERITIES, VERDICTS, Diagnosis, Flag
from dgviz.diagnosis.rounding import check_merged_lora
from dgviz.floor import rounding_floor, rounding_returned
from dgviz.store import Spectrum, StoredSpectrum
from dgviz.threshold import Threshold

_NOTHING = ("unchanged", "all_kept")  # these say that a repair changes nothing
_UNEVEN = "Compare with ScreeNOT or with sign flips, which allow for noise of unequal size."
_ADVICE = {
    "low_rank": (
        "Keep this weight as it is, or choose a fixed rank or an energy fraction: there is no bulk to remove."
    ),
    "merged_lora": (
        "Take the adapter instead of the merge, or merge it again in float32; the directions kept can also be "
        "written as an adapter of their own."
    ),
    "rounding_bulk": "Get the fine-tuned weights in float32 if they exist: most of this noise is not theirs.",
    "swallowed": "Get the fine-tuned weights in float32 if they exist: this format holds too little of the update.",
    "rounding_back": "Write the repair in float32, or as a LoRA adapter or factors.",
    "concentrated": "Look at the largest entries on the weight's own page.",
    "row_variance": _UNEVEN,
    "column_variance": _UNEVEN,
    "kurtosis": "Look at the largest entries on the weight's own page; ScreeNOT is no help against single entries.",
    "mp_distance": "Compare the rules on this weight: where they disagree, a conservative choice keeps more.",
    "near_tau": "Compare with the bulk edge: it keeps these weak directions.",
    "screenot": "Compare with ScreeNOT, and with an optimal shrinker instead of a hard cut.",
    "kept_share": "Compare with ScreeNOT, which takes many strong directions out before it judges the noise.",
    "nothing_kept": "Keep this weight as tuned, or try WiSE-FT, which scales the update instead of cutting it.",
    "autocorrelation": "Compare with ScreeNOT, which allows for entries that move together.",
}


def diagnose(spectrum: Spectrum | StoredSpectrum, threshold: Threshold) -> Diagnosis:
    """Return whether a threshold may be trusted on one matrix, from what is stored of it.

    Parameters
    ----------
    spectrum : Spectrum or StoredSpectrum
        Singular values, shape and summary; without a summary some checks cannot be made, and a flag says so.
    threshold : Threshold
        What the rule found in its live part (`live_s`, `live_shape`).
    """
    case = Case(
        spectrum.live_s,
        spectrum.live_shape,
        tuple(spectrum.shape),
        threshold,
        spectrum.summary,
        rounding_floor(spectrum),
        rounding_returned(spectrum, threshold.rank),
    )
    unchanged = checks.check_unchanged(case)
    if unchanged is not None:
        return _concluded([unchanged], threshold, case.p)
    low_rank = checks.check_median(case) or check_merged_lora(case)
    if low_rank is not None:
        said = (low_rank, checks.check_trimmed(case), checks.check_measured(case))
        return _concluded([flag for flag in said if flag is not None], threshold, case.p)
    return _concluded([flag for check in checks.CHECKS if (flag := check(case)) is not None], threshold, case.p)


def _concluded(flags: list[Flag], threshold: Threshold, count: int) -> Diagnosis:
    """Return the diagnosis that flags add up to."""
    flags = sorted(flags, key=lambda flag: -SEVERITIES.index(flag.severity))
    errors = [flag for flag in flags if flag.severity == "error"]
    nothing = [flag for flag in flags if flag.check in _NOTHING]
    warned = [flag for flag in flags if flag.severity == "warn"]
    if errors:
        verdict, reasons = "not_applicable", [flag.message for flag in errors]
    elif nothing:
        verdict, reasons = "no_effect", [flag.message for flag in nothing]
    elif warned:
        verdict, reasons = "care", [flag.message for flag in warned]
    elif threshold.rank == 0:
        verdict, reasons = "applies", [flag.message for flag in flags if flag.check == "nothing_kept"]
    else:
        verdict = "applies"
        reasons = [
            f"{threshold.rank} of {count} directions stand above a bulk that follows the noise law, and no check "
            "found anything that would mislead the threshold."
        ]
    advice = dict.fromkeys(_ADVICE[flag.check] for flag in flags if flag.check in _ADVICE)
    return Diagnosis(verdict, tuple(reasons), tuple(advice), tuple(flags))


@dataclass(frozen=True)
class WeighedDiagnosis:
    """The diagnosis of one matrix and what it weighs in its model.

    Attributes
    ----------
    name : str
        Of the weight.
    parameters : int
        Entries of its live part.
    energy : float
        Sum of squares of its update.
    diagnosis : Diagnosis
        Its own.
    """

    name: str
    parameters: int
    energy: float
    diagnosis: Diagnosis


def diagnose_model(weights: Iterable[WeighedDiagnosis]) -> Diagnosis:
    """Return the verdict on a whole model.

    Every matrix weighs the mean of its share of the parameters and its share of the update's energy; one that did not
    change weighs nothing, unless none did. A verdict that holds for half of that weight is the model's; a model of
    which more than a tenth needs care, or is out of the method's reach, is one that needs care.

    Parameters
    ----------
    weights : iterable of WeighedDiagnosis
        All matrices that would be repaired.

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
        reasons.append(f"{len(everything) - len(changed)} matrices were not changed by fine-tuning.")
    flags = _gathered(counted)
    reasons += [flag.message for flag in flags[:3]]
    advice = dict.fromkeys(_ADVICE[flag.check] for flag in flags if flag.check in _ADVICE)
    return Diagnosis(verdict, tuple(reasons), tuple(advice), tuple(flags))


def _gathered(weights: list[WeighedDiagnosis]) -> list[Flag]:
    """Return one flag per check that was raised in several matrices, its value their number; the worst first."""
    raised: dict[tuple[str, str], list[tuple[str, Flag]]] = {}
    for weight in weights:
        for flag in weight.diagnosis.flags:
            raised.setdefault((flag.check, flag.severity), []).append((weight.name, flag))
    flags = []
    for (check, severity), found in raised.items():
        name, example = found[0]
        message = f"{example.title} in {len(found)} of {len(weights)} matrices, such as {name}: {example.message}"
        flags.append(Flag(check, float(len(found)), None, severity, message, example.reference))
    return sorted(flags, key=lambda flag: (-SEVERITIES.index(flag.severity), -(flag.value or 0)))
