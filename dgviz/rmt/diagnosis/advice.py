"""What to do: one leading action for every verdict, then one sentence per action that checks ask for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dgviz.forecast.fitted import fits_lead, fits_words
from dgviz.forecast.words import averaging_leads, averaging_words, control_leads, control_words

_ACTIONS = {
    "keep": ("Keep this weight as it is", "Leave these weights as they are, by a selection or --exclude"),
    "emptied": (
        "Keep this weight as it is",
        "Leave the weights of which nothing is kept as they are, by a selection or --exclude",
    ),
    "adapter": ("Take the adapter instead of the merge", "Take the adapter instead of the merge"),
    "merge": ("Merge the adapter again in float32", "Merge the adapter again in float32"),
    "float32": ("Get the fine-tuned weight in float32", "Get the fine-tuned weights in float32"),
    "write": ("Write the repair in float32, or as an adapter or factors",) * 2,
    "screenot": ("Compare with ScreeNOT", "Compare with ScreeNOT"),
    "flips": ("Compare with sign flips", "Compare with sign flips"),
    "edge": ("Compare with the bulk edge", "Compare with the bulk edge"),
    "rules": ("Compare the rules on this weight", "Compare the rules on the model"),
    "shrinker": ("Try an optimal shrinker", "Try an optimal shrinker"),
    "entries": (
        "Look at the largest entries in the maps below",
        "Look at the largest entries, on the weights' own pages",
    ),
}
"""What can be done, said of one weight and of a model."""

_UNEVEN = ("screenot", "it allows for noise of unequal size"), ("flips", "they hold for any variances")
_ADVICE: dict[str, tuple[tuple[str, str], ...]] = {
    "unrelated": (("keep", "base has nothing to give it"),),
    "low_rank": (("keep", "there is no bulk to remove"),),
    "merged_lora": (
        ("adapter", "it holds the directions without the rounding"),
        ("merge", "rounding then leaves nothing below the directions"),
    ),
    "rounding_bulk": (("float32", "most of this noise is rounding and not training's"),),
    "swallowed": (("float32", "this format holds too little of the update"),),
    "rounding_back": (("write", "rounding to tuned's own dtype puts part of the noise back"),),
    "row_variance": _UNEVEN,
    "column_variance": _UNEVEN,
    "kurtosis": (("entries", "single ones may make directions, and ScreeNOT is no help against them"),),
    "concentrated": (("entries", "some directions are single rows or columns"),),
    "mp_distance": (("rules", "where they disagree, the noise level is in doubt"),),
    "near_tau": (("edge", "it keeps the weak directions below tau"),),
    "screenot": (
        ("screenot", "it keeps fewer directions here"),
        ("shrinker", "it scales doubtful directions down instead of cutting"),
    ),
    "kept_share": (("screenot", "it takes many strong directions out before it judges the noise"),),
    "nothing_kept": (("emptied", "small steps along many directions look like noise too"),),
    "autocorrelation": (("screenot", "it allows for entries that move together"),),
}
"""Per check: actions and why each helps."""


_INSTEAD = {"edge": ("screenot", "flips")}
"""Actions that are left out beside others: uneven noise explains a crowd below tau, so that a rule which keeps less
is right, and one which keeps more would be its opposite."""


def advise(checks: Iterable[str], model: bool) -> tuple[str, ...]:
    """Return what to do about checks that were raised, in their order; the reasons of one action stand together."""
    reasons: dict[str, dict[str, None]] = {}
    for check in checks:
        for action, reason in _ADVICE.get(check, ()):
            reasons.setdefault(action, {})[reason] = None
    told = {action: why for action, why in reasons.items() if not reasons.keys() & set(_INSTEAD.get(action, ()))}
    return tuple(f"{_ACTIONS[action][model]}: {'; '.join(why)}." for action, why in told.items())


def advise_verdict(
    verdict: str, checks: Sequence[str], model: bool, config: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Return what to do about a verdict: the leading action first, then what to score beside it, then the checks'.

    A model's config tells whether scales can be fitted for it that did better on models of its kind.
    """
    rest = advise(checks, model)
    lead = _lead_model(verdict, checks) if model else _lead_weight(verdict, rest)
    if config and "unrelated" not in checks and fits_lead(config):
        lead = (f"Fit scales to texts that both sides write (dgviz fit): {fits_words(config)}.", *lead)
    return tuple(dict.fromkeys((*lead, *rest)))


def _lead_weight(verdict: str, rest: Sequence[str]) -> tuple[str, ...]:
    """Return the first thing to do about one weight."""
    if verdict == "applies":
        return ("Let the rule decide here: what it drops has the spectrum of noise, which is all that can be shown.",)
    if verdict == "no_effect":
        return ("Leave it at that: the repair changes nothing here.",)
    return tuple(rest[:1]) or ("Compare the rules on this weight: where they agree, the cut is not in doubt.",)


def _lead_model(verdict: str, checks: Sequence[str]) -> tuple[str, ...]:
    """Return the first thing to do about a model, and what to score beside it; what did better was measured."""
    averaging = "Average with base (WiSE-FT)", "averaging with base (WiSE-FT)", averaging_words()
    if verdict == "not_applicable" and "unrelated" in checks:
        return ("Open tuned with the base that it was made from: a repair towards this one would destroy it.",)
    if verdict in ("not_applicable", "no_effect"):
        return (f"{averaging[0]} if something was forgotten: DG-Hard takes nothing away here, and {averaging[2]}.",)
    control = (
        "Shorten the whole update to DG-Hard's length (norm_matched)",
        "the whole update at DG-Hard's length (norm_matched)",
        control_words(),
    )
    leading = [found for found, leads in ((averaging, averaging_leads()), (control, control_leads())) if leads][:1]
    beside = [
        f"{noun}: {words}" for _, noun, words in (averaging, control) if noun not in [own[1] for own in leading]
    ]
    if leading:
        beside.append("DG-Hard itself")
    first = f"{leading[0][0]}: {leading[0][2]}." if leading else "Repair by DG-Hard."
    return first, f"Score beside it {'; and '.join(beside)}."
