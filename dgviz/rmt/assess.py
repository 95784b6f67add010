"""What a rule makes of one spectrum, in figures: one function for every page, command and report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dgviz.rmt.diagnosis import diagnose
from dgviz.rmt.rounding_noise import rounding_noise, rounding_returned
from dgviz.rmt.spectrum import Spectrum
from dgviz.rmt.threshold import Threshold, find_rule


def apply_rule(spectrum: Spectrum, rule: str, params: Mapping[str, Any], delta: Any = None) -> Threshold:
    """Return the threshold of a rule on the nonzero block of one weight's update: the one way to apply a rule."""
    found = find_rule(rule)
    known = stored_tau(spectrum, rule, params) if delta is None else None
    if known is not None:
        return found.apply_at(known, spectrum.nonzero_s, spectrum.nonzero_shape, **params)
    return found.apply(spectrum.nonzero_s, spectrum.nonzero_shape, delta=delta, **params)


def needs_delta(spectrum: Spectrum, rule: str, params: Mapping[str, Any]) -> bool:
    """Return whether a rule can be applied only where the delta is at hand."""
    return find_rule(rule).needs_delta and stored_tau(spectrum, rule, params) is None


def stored_tau(spectrum: Spectrum, rule: str, params: Mapping[str, Any]) -> float | None:
    """Return the tau that a rule which needs the delta found when it was at hand, None for any other."""
    if not find_rule(rule).needs_delta:
        return None
    return spectrum.summary.get("thresholds", {}).get(threshold_key(rule, params))


def threshold_key(rule: str, params: Mapping[str, Any]) -> str:
    """Return under which name a summary keeps the tau of a rule that needs the delta, in its ``thresholds``.

    The multiplier on tau is no part of it: what is kept is for a multiplier of 1.
    """
    settings = find_rule(rule).checked(params)
    settings.pop("scale", None)
    return f"{rule} {json.dumps(settings, sort_keys=True)}"


def matrix_row(spectrum: Spectrum, rule: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a matrix as plain values: what a rule finds, whether it may be trusted, and the route."""
    threshold = apply_rule(spectrum, rule, params)
    return {
        "rank": threshold.rank,
        "tau": threshold.tau,
        "sigma": threshold.sigma,
        "edge": threshold.edge,
        "energy_kept": spectrum.energy_kept(threshold.rank),
        "mp_fit": spectrum.mp_fits(threshold.sigma, threshold.rank),
        "warnings": [*threshold.warnings, *spectrum.warnings],
        "diagnosis": diagnose(spectrum, threshold).to_json(),
        "rounding": _rounding(spectrum, threshold),
        "live_shape": list(spectrum.nonzero_shape),
        "energy": spectrum.energy,
        "summary": spectrum.summary,
        "route": spectrum.certificate["route"],
        "stored": spectrum.stored,
        "seconds": spectrum.seconds,
    }


def _rounding(spectrum: Spectrum, threshold: Threshold) -> dict[str, Any] | None:
    """Return the rounding in an update as plain values; None where both sides are stored finely."""
    rounding = rounding_noise(spectrum)
    if rounding is None:
        return None
    shares = {"share": rounding.share(threshold.sigma), "share_most": rounding.share_most(threshold.sigma)}
    return asdict(rounding) | shares | {"returned": rounding_returned(spectrum, threshold.rank)}


def stack_rows(rows: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return the rows of a stack's matrices as one: a list for every figure, the warnings without repetition.

    ``diagnosis`` becomes a list of whole diagnoses.
    """
    known = [row for row in rows if row is not None]
    if not known:
        return {}
    stacked: dict[str, Any] = {}
    for key, example in known[0].items():
        values = [None if row is None else row[key] for row in rows]
        if key == "warnings":
            stacked[key] = list(dict.fromkeys(warning for row in known for warning in row[key]))
        elif isinstance(example, Mapping) and key != "diagnosis":
            names = dict.fromkeys(name for value in values if value for name in value)
            stacked[key] = {name: [value and value.get(name) for value in values] for name in names}
        else:
            stacked[key] = values
    return stacked
