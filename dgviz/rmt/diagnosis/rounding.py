"""The checks of storage: how much of the bulk is rounding, whether a LoRA was merged, what rounding takes back."""

import math

import numpy as np

from dgviz.rmt.diagnosis.case import Case
from dgviz.rmt.diagnosis.flags import LIMITS, Flag

_SIMULATED = "rounding of simulated updates, docs/development/diagnosis.md"
_BUSSGANG = "Bussgang 1952; docs/development/diagnosis.md"


def check_merged_lora(case: Case) -> Flag | None:
    """Recognise a LoRA merged in a 16-bit format: few directions far above a bulk that is all rounding."""
    rounding = case.rounding
    if rounding is None or rounding.side != "tuned" or rounding.gain < LIMITS["merged_lora_gain"].value:
        return None
    rank = int(np.count_nonzero(case.s > case.optimal_tau))
    if not 0 < rank <= case.p // 4 or case.s[rank - 1] < LIMITS["merged_lora_gap"].value * case.s[rank]:
        return None
    rest = float(np.linalg.norm(case.s[rank:])) / math.sqrt((case.shape[0] - rank) * (case.shape[1] - rank))
    share, both = (rounding.sigma / rest) ** 2, (rounding.sigma_most / rest) ** 2
    alone = share >= LIMITS["merged_lora_share"].value
    # Rounding of both sides may explain the bulk as well; noise of just that size would be a coincidence.
    if not alone and abs(both - 1) > LIMITS["merged_lora_both"].value:
        return None
    message = (
        f"Looks like a LoRA of rank about {rank} merged in {rounding.format}: {rank} of {case.p} directions stand "
        f"clear of the others, and what lies below is rounding of {'the stored weights' if alone else 'both sides'} "
        f"({_percent(share if alone else both)} of it), not noise of training; the rule would remove rounding that "
        "storing the result puts back."
    )
    return Flag("merged_lora", float(rank), case.p / 4, "error", message, _BUSSGANG)


def check_rounding_noise(case: Case) -> Flag | None:
    """How much of the bulk is rounding of the stored weights."""
    rounding = case.rounding
    if rounding is None:
        return None
    least, most = rounding.shares(case.threshold.sigma)
    worth, much = LIMITS["rounding_share"].value, LIMITS["rounding_bulk"].value
    if rounding.side == "base":
        if most < worth:
            return None
        message = (
            f"Base is stored in {rounding.format} and tuned is not: if fine-tuning started from a finer base, "
            f"{_percent(most)} of the bulk is rounding of the stored base."
        )
        return Flag("rounding_noise", most, worth, "info", message, _SIMULATED)
    if least < worth:
        return None
    message = f"About {_percent(least)} of the bulk's variance is rounding of the stored weights to {rounding.format}"
    if most > 1.05 * least:
        message += f", and about {_percent(most)} if base too was rounded after fine-tuning had started from it"
    uneven = {"row": rounding.uneven_rows, "column": rounding.uneven_columns}
    if any(value > case.variance_limit(along) for along, value in uneven.items()):
        message += (
            "; it differs in size between rows or columns, so that its own spectrum is wider than the line drawn"
        )
    if least < much:
        return Flag("rounding_noise", least, worth, "info", f"{message}.", _BUSSGANG)
    message += ": little of what the rule removes was put there by training."
    return Flag("rounding_bulk", least, much, "warn", message, _BUSSGANG)


def _percent(share: float) -> str:
    return "all" if share > 0.995 else f"{100 * share:.0f} %"


def check_swallowed(case: Case) -> Flag | None:
    """Whether the steps of the storage format are so coarse that much of what was learned is not stored."""
    rounding, limit = case.rounding, LIMITS["stored_gain"].value
    if rounding is None or rounding.side != "tuned" or rounding.gain >= limit:
        return None
    message = (
        f"Most steps of {rounding.format} are larger than the update: the stored weights hold about "
        f"{100 * rounding.gain:.0f} % of what was learned, and which directions stand out is partly chance."
    )
    return Flag("swallowed", rounding.gain, limit, "warn", message, _BUSSGANG)


def check_rounding_back(case: Case) -> Flag | None:
    """Check 9: rounding the result to tuned's dtype leaves what was removed removed."""
    value, limit = case.returned, LIMITS["rounding_back"].value
    if value is None or value <= limit:
        return None
    message = (
        f"Written in {case.summary['steps']['stored']}, rounding puts back about {100 * value:.0f} % of the norm of "
        "the noise that is removed."
    )
    return Flag("rounding_back", value, limit, "warn", message, _SIMULATED)
