"""What a rule makes of one spectrum, in figures: one function for every page, command and report."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from dgviz.rmt.diagnosis import diagnose
from dgviz.rmt.directions import NO_DIRECTIONS, Directions
from dgviz.rmt.null import mp_fits
from dgviz.rmt.rounding_noise import rounding_noise, rounding_returned
from dgviz.rmt.spectrum import Spectrum, norm_ratio
from dgviz.rmt.threshold import DEGENERATE_MEDIAN, Threshold, find_rule


def apply_rule(
    spectrum: Spectrum, rule: str, params: Mapping[str, Any], delta: Callable[[], Any] | None = None
) -> Threshold:
    """Return the threshold of a rule on the nonzero block of one weight's update: the one way to apply a rule.

    `delta` fetches the delta, for the few rules that cannot be told from the spectrum and whose tau is not stored.
    """
    found, s, shape = find_rule(rule), spectrum.nonzero_s, spectrum.nonzero_shape
    if not found.needs_delta:
        return found.apply(s, shape, **params)
    known = _stored_tau(spectrum, rule, params)
    if known is not None:
        return found.apply_at(known, s, shape, **params)
    return found.apply(s, shape, delta=delta and delta(), **params)


def needs_delta(spectrum: Spectrum, rule: str, params: Mapping[str, Any]) -> bool:
    """Return whether a rule can be applied only where the delta is at hand."""
    return find_rule(rule).needs_delta and _stored_tau(spectrum, rule, params) is None


def _stored_tau(spectrum: Spectrum, rule: str, params: Mapping[str, Any]) -> float | None:
    """Return the tau that a rule found when the delta was at hand, where a scan has kept it."""
    return spectrum.summary.get("thresholds", {}).get(threshold_key(rule, params))


def threshold_key(rule: str, params: Mapping[str, Any]) -> str:
    """Return under which name a summary keeps the tau of a rule that needs the delta, in its ``thresholds``.

    The multiplier on tau is no part of it: what is kept is for a multiplier of 1.
    """
    settings = find_rule(rule).checked(params)
    settings.pop("scale", None)
    return f"{rule} {json.dumps(settings, sort_keys=True)}"


def kept_values(spectrum: Spectrum, threshold: Threshold, directions: Directions) -> np.ndarray:
    """Return the singular values of the nonzero block, zero where neither threshold nor a single direction keeps."""
    s = spectrum.nonzero_s
    kept = s.copy() if threshold.whole else np.where(np.arange(s.size) < threshold.rank, s, 0.0)
    return directions.applied(kept, s, spectrum.name)


def kept_rank(kept: np.ndarray, threshold: Threshold, directions: Directions) -> int:
    """Return how many directions are kept; of an update kept whole those above rounding level."""
    if not directions:
        return threshold.rank
    return int(np.count_nonzero(kept > DEGENERATE_MEDIAN * np.max(kept, initial=0.0) if threshold.whole else kept))


def matrix_row(
    spectrum: Spectrum, rule: str, params: Mapping[str, Any], directions: Directions = NO_DIRECTIONS
) -> dict[str, Any]:
    """Return the figures of a matrix as plain values: what a rule finds, whether it may be trusted, and the route."""
    threshold = apply_rule(spectrum, rule, params)
    kept = kept_values(spectrum, threshold, directions)
    return {
        "rank": kept_rank(kept, threshold, directions),
        "tau": threshold.tau,
        "sigma": threshold.sigma,
        "edge": threshold.edge,
        "energy_kept": norm_ratio(kept, spectrum.nonzero_s) ** 2,
        "mp_fit": mp_fits(spectrum.nonzero_s, kept, threshold.sigma, spectrum.nonzero_shape),
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
    share, most = rounding.shares(threshold.sigma)
    returned = rounding_returned(spectrum, threshold.rank)
    return asdict(rounding) | {"share": share, "share_most": most, "returned": returned}
