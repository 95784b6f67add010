"""The checks: each looks at one thing that a threshold takes for granted, and returns a flag or None."""

import math
from functools import partial

import numpy as np

from dgviz.rmt.diagnosis import rounding
from dgviz.rmt.diagnosis.case import Case
from dgviz.rmt.diagnosis.flags import LIMITS, Flag
from dgviz.rmt.law import aspect_ratio, sorted_median
from dgviz.rmt.null import noise_distance
from dgviz.rmt.threshold import DEGENERATE_MEDIAN
from dgviz.rmt.threshold.screenot import screenot_exceeds, screenot_tau

_THEORY = "Gavish & Donoho 2014, arXiv 1305.5870"
_PAPER = "DG-Hard, arXiv 2605.20296"
_SIMULATED = "simulated noise, docs/development/diagnosis.md"


def check_unchanged(case: Case) -> Flag | None:
    """Whether there is an update at all."""
    if case.s[0] > 0:
        return None
    message = (
        "The update is exactly zero: the tensor was frozen, or lies outside the layers that training touched "
        "(as CoFi-Tune leaves them)."
    )
    return Flag("unchanged", 0.0, 0.0, "info", message, _PAPER)


def check_unrelated(case: Case) -> Flag | None:
    """Whether tuned descends from base, so that there is an update to speak of."""
    value, limit = case.summary.get("correlation"), LIMITS["unrelated"].value
    if value is None or value >= limit:
        return None
    message = (
        f"Tuned has nothing in common with base here (correlation {value:.2f}, |tuned - base| / |base| "
        f"{case.summary['relative_size']:.2f}): this is not the base it was tuned from, or a head begun anew, and "
        "their difference is no update."
    )
    return Flag("unrelated", value, limit, "error", message, "")


def check_median(case: Case) -> Flag | None:
    """Check 1: the median singular value measures noise, and not the rounding below a low rank."""
    level = DEGENERATE_MEDIAN * float(case.s[0])
    if sorted_median(case.s) > level:
        return None
    rank = int(np.count_nonzero(case.s > level))
    message = (
        f"Low-rank delta: only {rank} of {case.p} singular values are above rounding level, as after a merged LoRA "
        f"of rank {rank}, so the median measures no noise and the threshold is undefined; the published algorithm "
        "gives back the tuned weight unchanged."
    )
    return Flag("low_rank", float(rank), case.p / 2, "error", message, _PAPER)


def check_trimmed(case: Case) -> Flag | None:
    """Check 2: rows and columns that are zero throughout are left out of shape, beta and median."""
    if case.shape == case.full_shape:
        return None
    (rows, columns), (all_rows, all_columns) = case.shape, case.full_shape
    parts = []
    if rows < all_rows:
        parts.append(f"{rows} of {all_rows} rows")
    if columns < all_columns:
        parts.append(f"{columns} of {all_columns} columns")
    message = (
        f"Only {' and '.join(parts)} were changed, as in an embedding whose other tokens never occurred or in layers "
        f"trained in part; the others are left out, so that N = {max(case.shape)}, p = {case.p} and "
        f"beta = {aspect_ratio(case.shape):.3g}."
    )
    share = rows * columns / (all_rows * all_columns)
    return Flag("trimmed", share, 1.0, "info", message, _SIMULATED)


def check_variance(case: Case, along: str) -> Flag | None:
    """Check 3: noise is of one size in all rows, or in all columns, beyond what sampling alone makes of it."""
    value, limit = case.summary.get(f"{along}_variance_cv"), case.variance_limit(along)
    if value is None:
        return None
    other = case.shape[1 if along == "row" else 0]
    spread = math.sqrt(max(0.0, value**2 - 2 / other))  # of iid noise: the variance of a variance of `other` entries
    if spread <= limit:
        return None
    message = (
        f"The {along}s differ in variance{_beside(case)} (coefficient of variation {spread:.2f}): noise of unequal "
        f"size stands above a threshold made for noise of one size, {_doubt(case)}."
    )
    return Flag(f"{along}_variance", spread, limit, "warn", message, _SIMULATED)


def _doubt(case: Case) -> str:
    """Return what is in doubt where noise is not as the threshold takes it to be."""
    return "so some of what is kept may be noise" if case.threshold.rank else "so its level may be misjudged"


def _beside(case: Case) -> str:
    """Return the words that say what was taken out before entries were looked at."""
    return " below the strongest directions" if case.summary.get("strong") else ""


def check_kurtosis(case: Case) -> Flag | None:
    """Check 4: no entry is so large that it makes a direction of its own."""
    value, limit = case.summary.get("kurtosis"), LIMITS["kurtosis"].value
    if value is None or value <= limit:
        return None
    message = (
        f"The entries{_beside(case)} have very heavy tails (kurtosis {value:.3g}, 3 for Gaussian ones): a few large "
        "entries make directions of their own, "
        + ("which are kept whether they mean anything or not." if case.threshold.rank else "none of which is kept.")
    )
    return Flag("kurtosis", value, limit, "warn", message, _SIMULATED)


def check_mp_distance(case: Case) -> Flag | None:
    """Check 5: what is dropped follows the Marchenko-Pastur law."""
    rest = case.p - case.threshold.rank
    if rest < 2:
        return None
    value = case.residual_distance
    usual, wrong = LIMITS["mp_distance_info"].value / rest, LIMITS["mp_distance_warn"].value
    if value <= usual:
        return None
    severity = "warn" if value > max(wrong, usual) else "info"
    usual_noise = noise_distance(case.rest_shape)
    message = (
        f"What is dropped is {value:.3f} away from the noise law, where noise of independent entries of this shape "
        f"is usually {usual_noise.median:.3f} away and rarely more than {usual_noise.high:.3f}: "
    ) + (
        "it has another shape, so it is not that noise alone and its level may be misjudged."
        if severity == "warn"
        else "close, but not such noise alone."
    )
    return Flag("mp_distance", value, max(wrong, usual) if severity == "warn" else usual, severity, message, _PAPER)


def check_near_tau(case: Case) -> Flag | None:
    """Check 6: no crowd of values between the bulk edge and tau, where noise has none."""
    value = float(np.mean((case.s > case.threshold.edge) & (case.s <= case.optimal_tau)))
    limit = LIMITS["near_tau"].value
    # One or two values just above the edge are in order: the edge is where noise ends on average.
    if value <= limit or value * case.p < 3:
        return None
    message = (
        f"{100 * value:.1f} % of the singular values lie between the bulk edge and "
        + (
            "tau, where iid noise has none: weak directions are dropped there,"
            if case.threshold.tau >= case.optimal_tau
            else "DG-Hard's tau, where iid noise has none: they may be weak directions,"
        )
        + " or the noise is wider than its median says."
    )
    return Flag("near_tau", value, limit, "warn", message, _THEORY)


def check_screenot(case: Case) -> Flag | None:
    """Check 7: a rule that assumes less of the noise agrees."""
    tau, rank, limit = case.optimal_tau, case.threshold.rank, LIMITS["screenot_ratio"].value
    if case.p < 8 or tau <= 0 or rank == 0:  # of none it cannot keep fewer
        return None
    beta, share = aspect_ratio(case.shape), min(0.49, max(0.1, 1.5 * rank / case.p))
    if not screenot_exceeds(case.s, beta, share, max(limit * tau, float(case.s[rank - 1]))):
        return None
    value = screenot_tau(case.s, beta, share) / tau
    kept = int(np.count_nonzero(case.s > value * tau))
    if value <= limit or kept >= rank:
        return None
    fewer = f"{kept} of the {rank} directions: the others" if rank > 1 else "nothing: its only direction"
    message = (
        f"ScreeNOT, which assumes neither equal variance nor independence, puts its threshold {value:.2f} times as "
        f"high and keeps {fewer} may be the top of uneven noise."
    )
    return Flag("screenot", value, limit, "warn", message, "Donoho, Gavish & Romanov 2023, arXiv 2009.12297")


def check_kept_share(case: Case) -> Flag | None:
    """Check 8: some directions are kept, but not so many that they raise the median."""
    rank, limit = case.threshold.rank, LIMITS["kept_share"].value
    value = rank / case.p
    if rank == 0:
        # Where the whole spectrum is that of noise, giving back base is what the rule is for; elsewhere a guess.
        usual = min(LIMITS["mp_distance_info"].value / case.p, noise_distance(case.shape).high)
        noise = case.residual_distance <= usual and case.p > 1
        if case.p == 1:
            message = (
                "There is one singular value, which is its own median: the threshold lies above it whatever it is, "
                "and nothing can be said of noise. The repair gives back base here."
            )
            return Flag("nothing_kept", 0.0, 0.0, "warn", message, _PAPER)
        message = "No direction stands above the threshold, and the repair gives back base here: " + (
            "the whole update has the spectrum of noise. What was learned in small steps along many directions would "
            "look the same, and goes with it."
            if noise
            else "yet the update has not the spectrum of noise alone, so something learned may go with it."
        )
        return Flag("nothing_kept", 0.0, 0.0, "info" if noise else "warn", message, _PAPER)
    if rank == case.p:
        message = "Every direction is kept: the repair changes nothing here."
        return Flag("all_kept", 1.0, 1.0, "warn", message, _PAPER)
    if value <= limit:
        return None
    message = (
        f"{rank} of {case.p} directions are kept: so many strong ones raise the median, so that the noise is judged "
        "too large and weaker directions are dropped."
    )
    return Flag("kept_share", value, limit, "warn", message, _SIMULATED)


def check_autocorrelation(case: Case) -> Flag | None:
    """Check 10: neighbouring entries are independent."""
    measured = {along: case.summary.get(f"{along}_autocorrelation") for along in ("row", "column")}
    known = {along: abs(value) for along, value in measured.items() if value is not None}
    if not known:
        return None
    along, value = max(known.items(), key=lambda item: item[1])
    limit = LIMITS["autocorrelation"].value
    # The mean of so many products of independent entries is off by its own standard error.
    if value <= limit + 3 / math.sqrt(case.shape[0] * case.shape[1]):
        return None
    message = (
        f"Neighbouring {along}s move together (correlation {value:.2f}): noise whose entries are not independent has "
        f"a wider spectrum than its median says, {_doubt(case)}."
    )
    return Flag("autocorrelation", value, limit, "warn", message, _SIMULATED)


def check_size(case: Case) -> Flag | None:
    """Check 10, size: enough singular values for a law."""
    limit = LIMITS["small"].value
    if case.p >= limit:
        return None
    message = (
        "Only one singular value: there is no median of others to tell noise by."
        if case.p == 1
        else f"Only {case.p} singular values: the median and the edge of so few fluctuate by several percent, and "
        "with them what is kept."
    )
    return Flag("small", float(case.p), limit, "warn", message, _THEORY)


def check_concentrated(case: Case) -> Flag | None:
    """Whether strong directions are single rows or columns, which noise with a loud row or a huge entry makes too."""
    value, limit = case.summary.get("strong_concentrated"), LIMITS["concentrated"].value
    if not value or value <= limit:
        return None
    message = (
        f"{value} of the {case.summary['strong']} strongest directions have more than half their weight in one row "
        "or one column: single loud rows and huge entries make such directions, whether or not they mean anything."
    )
    return Flag("concentrated", float(value), limit, "warn", message, _SIMULATED)


def check_zero_share(case: Case) -> Flag | None:
    """Check 11: how many entries did not change at all."""
    value, limit = case.summary.get("zero_share"), LIMITS["zero_share"].value
    if value is None:
        return None
    nonzero = case.shape[0] * case.shape[1]
    total = case.full_shape[0] * case.full_shape[1]
    value = 1 - (1 - value) * total / nonzero  # of the nonzero block: zero rows and columns are another check's
    if value <= limit:
        return None
    message = (
        f"{100 * value:.0f} % of the entries did not change at all: a sparse update, or steps smaller than the "
        "storage format resolves. Scattered zeros alone do not mislead the threshold."
    )
    return Flag("zero_share", value, limit, "info", message, _SIMULATED)


def check_measured(case: Case) -> Flag | None:
    """Whether the entries were looked at, which four checks need."""
    if case.summary:
        return None
    message = (
        "Only the singular values are known: variance of rows and columns, tails, neighbours, zeros and rounding "
        "were not looked at; a scan does that."
    )
    return Flag("unmeasured", None, None, "info", message, "")


CHECKS = (
    check_trimmed,
    partial(check_variance, along="row"),
    partial(check_variance, along="column"),
    check_kurtosis,
    check_mp_distance,
    check_near_tau,
    check_screenot,
    check_kept_share,
    check_autocorrelation,
    rounding.check_rounding_noise,
    rounding.check_swallowed,
    rounding.check_rounding_back,
    check_size,
    check_concentrated,
    check_zero_share,
    check_measured,
)
"""Made of every update whose median measures noise; `check_unchanged`, `check_median` and
`rounding.check_merged_lora` come before them."""
