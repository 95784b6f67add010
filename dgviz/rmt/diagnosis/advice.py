"""What to do instead, or beside: one sentence per action, whatever number of checks and weights ask for it."""

from collections.abc import Iterable

_ACTIONS = {
    "keep": ("Keep this weight as it is", "Leave these weights as they are, by a selection or --exclude"),
    "fixed": ("Choose a fixed rank or an energy fraction", "Choose a fixed rank or an energy fraction"),
    "adapter": ("Take the adapter instead of the merge", "Take the adapter instead of the merge"),
    "merge": ("Merge the adapter again in float32", "Merge the adapter again in float32"),
    "float32": ("Get the fine-tuned weight in float32", "Get the fine-tuned weights in float32"),
    "write": ("Write the repair in float32, or as an adapter or factors",) * 2,
    "screenot": ("Compare with ScreeNOT", "Compare with ScreeNOT"),
    "flips": ("Compare with sign flips", "Compare with sign flips"),
    "edge": ("Compare with the bulk edge", "Compare with the bulk edge"),
    "rules": ("Compare the rules on this weight", "Compare the rules on the model"),
    "shrinker": ("Try an optimal shrinker", "Try an optimal shrinker"),
    "wise_ft": ("Try WiSE-FT", "Try WiSE-FT"),
    "entries": (
        "Look at the largest entries in the maps below",
        "Look at the largest entries, on the weights' own pages",
    ),
}
"""What can be done, said of one weight and of a model."""

_UNEVEN = ("screenot", "it allows for noise of unequal size"), ("flips", "they hold for any variances")
_ADVICE: dict[str, tuple[tuple[str, str], ...]] = {
    "unrelated": (("keep", "base has nothing to give it"),),
    "low_rank": (("keep", "there is no bulk to remove"), ("fixed", "neither needs noise to be measured")),
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
    "mp_distance": (("rules", "where they disagree, a conservative choice keeps more"),),
    "near_tau": (("edge", "it keeps the weak directions below tau"),),
    "screenot": (
        ("screenot", "it keeps less where noise is uneven"),
        ("shrinker", "it scales doubtful directions down instead of cutting"),
    ),
    "kept_share": (("screenot", "it takes many strong directions out before it judges the noise"),),
    "nothing_kept": (
        ("keep", "small steps along many directions look like noise too"),
        ("wise_ft", "it scales the update instead of cutting it"),
    ),
    "autocorrelation": (("screenot", "it allows for entries that move together"),),
}
"""Per check: actions and why each helps."""


def advise(checks: Iterable[str], model: bool) -> tuple[str, ...]:
    """Return what to do about checks that were raised, in their order; the reasons of one action stand together."""
    reasons: dict[str, dict[str, None]] = {}
    for check in checks:
        for action, reason in _ADVICE.get(check, ()):
            reasons.setdefault(action, {})[reason] = None
    return tuple(f"{_ACTIONS[action][model]}: {'; '.join(why)}." for action, why in reasons.items())
