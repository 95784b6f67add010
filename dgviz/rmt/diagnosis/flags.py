"""What a check reports, what a diagnosis is, and the one table of limits with their reasons."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

VERDICTS = {
    "applies": "passes the checks",
    "care": "passes with warnings",
    "no_effect": "does nothing here",
    "not_applicable": "does not apply",
}
"""Verdicts in words, the best first."""

SEVERITIES = ("info", "warn", "error")

TITLES = {
    "unchanged": "No update",
    "unrelated": "Nothing in common with base",
    "low_rank": "Low-rank update",
    "merged_lora": "Merged LoRA",
    "trimmed": "Zero rows or columns",
    "row_variance": "Rows of unequal variance",
    "column_variance": "Columns of unequal variance",
    "kurtosis": "Heavy tails",
    "mp_distance": "Bulk unlike the noise law",
    "near_tau": "Values between edge and tau",
    "screenot": "ScreeNOT would keep less",
    "kept_share": "Many directions kept",
    "nothing_kept": "Nothing kept",
    "all_kept": "Everything kept",
    "rounding_back": "Rounding puts noise back",
    "rounding_noise": "Rounding in the bulk",
    "rounding_bulk": "Bulk mostly rounding",
    "swallowed": "Update finer than its storage",
    "concentrated": "Directions of single rows or columns",
    "autocorrelation": "Entries that move together",
    "small": "Few singular values",
    "zero_share": "Unchanged entries",
    "unmeasured": "Entries not looked at",
}
"""Every check in words."""


@dataclass(frozen=True)
class Flag:
    """What one check found worth saying.

    Attributes
    ----------
    check : str
        Name of the check.
    value : float or None
        What was measured; None where there is no single number.
    limit : float or None
        What it was compared with.
    severity : str
        One of `SEVERITIES`: ``"error"`` where the threshold has no meaning, ``"warn"`` where it may be wrong.
    message : str
        One sentence for the user.
    reference : str
        Where the check comes from.
    """

    check: str
    value: float | None
    limit: float | None
    severity: str
    message: str
    reference: str = ""

    @property
    def title(self) -> str:
        """The check in words."""
        return TITLES.get(self.check, self.check.replace("_", " ").capitalize())


@dataclass(frozen=True)
class Diagnosis:
    """Whether a threshold may be trusted, and why.

    Attributes
    ----------
    verdict : str
        A key of `VERDICTS`.
    reasons : tuple of str
        Sentences that led to it, the weightiest first.
    advice : tuple of str
        What to do, the first thing first.
    flags : tuple of Flag
        Everything the checks had to say, errors first.
    """

    verdict: str
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    flags: tuple[Flag, ...]

    @property
    def word(self) -> str:
        """The verdict for a person."""
        return VERDICTS[self.verdict]

    def __str__(self) -> str:
        """Return it as text: the verdict, what to do, and why."""
        parts = ("What to do first", self.advice), ("Why", self.reasons)
        return "\n".join((f"The rule {self.word}.", *(f"{title}: {' '.join(said)}" for title, said in parts if said)))

    def _repr_html_(self) -> str:
        """Return it for a notebook."""
        parts = ("What to do first", self.advice), ("Why", self.reasons)
        lists = (
            f"<p>{title}:</p><ul>{''.join(f'<li>{escape(one)}</li>' for one in said)}</ul>"
            for title, said in parts
            if said
        )
        return f"<p><strong>The rule {self.word}.</strong></p>{''.join(lists)}"

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Diagnosis":
        """Return the diagnosis that `to_json` described.

        Parameters
        ----------
        values : mapping
            The JSON object.
        """
        flags = tuple(Flag(**flag) for flag in values["flags"])
        return cls(values["verdict"], tuple(values["reasons"]), tuple(values["advice"]), flags)


@dataclass(frozen=True)
class Limit:
    """A number that a check compares with, and why it is that number."""

    value: float
    reason: str


_MEASURED = "false keeps on pure noise: python -m tests.bench.bench_diagnosis"
_ROUNDED = "python -m tests.bench.bench_rounding"

LIMITS: dict[str, Limit] = {
    "unrelated": Limit(0.1, "correlation of base and tuned: 1024 independent entries have 0.03"),
    "long_variance_cv": Limit(0.6, f"unequal variance along the longer side widens the bulk; {_MEASURED}"),
    "short_variance_cv": Limit(0.35, f"along the shorter side it takes less to do so; {_MEASURED}"),
    "kurtosis": Limit(30.0, f"entries with tails this heavy make directions of single entries; {_MEASURED}"),
    "mp_distance_info": Limit(8.0, "over p: noise of independent entries stays below 5 / p in 99 of 100 matrices"),
    "mp_distance_warn": Limit(0.07, "the bulk has another shape than the law: its median says another sigma"),
    "near_tau": Limit(0.005, "share of values between bulk edge and tau, where noise has none"),
    "screenot_ratio": Limit(
        1.10, "ScreeNOT, which assumes less of the noise, puts tau so much higher, and keeps fewer"
    ),
    "kept_share": Limit(0.10, "k spikes of p shift the median: sigma is 5.9 % too large at 10 %, beta 0.375"),
    "autocorrelation": Limit(0.1, f"neighbouring entries that move together widen the bulk; {_MEASURED}"),
    "small": Limit(64, "p below which the law's edge and median have errors of several percent"),
    "concentrated": Limit(0, f"directions twice the edge that are one row or one column; {_MEASURED}"),
    "rounding_share": Limit(0.1, "share of the bulk's variance that is rounding from which on it is said"),
    "rounding_bulk": Limit(0.5, "more of the bulk is rounding than is not"),
    "stored_gain": Limit(0.5, "less of what was learned is stored than is not"),
    "merged_lora_share": Limit(0.9, f"rounding explains all below the directions, within its own error; {_ROUNDED}"),
    "merged_lora_both": Limit(0.05, f"rounding of both sides explains all of it, neither more nor less; {_ROUNDED}"),
    "merged_lora_gain": Limit(0.4, f"updates stored more coarsely are all rounding, whatever they were; {_ROUNDED}"),
    "merged_lora_gap": Limit(1.5, f"last direction over the first value below: a full update decays; {_ROUNDED}"),
    "rounding_back": Limit(0.25, "a sixteenth of the removed energy comes back where the result is stored"),
    "zero_share": Limit(0.5, "more entries unchanged than changed"),
}
"""Every limit by name; the numbers are heuristics from simulated noise (docs/development/diagnosis.md)."""
