"""The table of all pairs and what it is worth, as rows for terminals and documents."""

from collections.abc import Iterable

from dgviz.forecast.foretell import OUTCOMES, Calibration
from dgviz.forecast.table import CalibratedPair, Value

PAIR_TITLES = (
    "pair", "family", "dropped, %", "damage, points", "healed", "target kept", "WiSE-FT: alpha", "healed",
    "target kept", "ahead", "D at the same length: healed", "target kept",
)  # fmt: skip
FIT_TITLES = ("left out", "pairs", "healing: error, points", "in range", "target kept: error, points", "in range")


def pair_rows(pairs: Iterable[CalibratedPair]) -> list[tuple[str, ...]]:
    """Return a row per pair; one that is left out of the fit says so."""
    return [
        (
            pair.name + ("" if pair.counted else " (left out)"),
            pair.family,
            f"{pair.dropped:.1f}",
            _text(pair.damage),
            _text(pair.dg_hard.healed),
            _text(pair.dg_hard.target_kept),
            f"{pair.alpha:g}",
            _text(pair.wise_ft.healed),
            _text(pair.wise_ft.target_kept),
            _text(pair.wise_ft_ahead),
            _text(pair.norm_matched.healed),
            _text(pair.norm_matched.target_kept),
        )
        for pair in pairs
    ]


def fit_rows(measured: Calibration) -> list[tuple[str, ...]]:
    """Return a row per left-out family, and one over all pairs; none where there are too few families."""
    healed, kept = (measured.outcomes[name] for name in OUTCOMES)
    rows = [
        (one.family, str(one.pairs), *_worth(one.error, one.covered), *_worth(other.error, other.covered))
        for one, other in zip(healed.left_out, kept.left_out, strict=True)
    ]
    if rows:
        whole = _worth(healed.error, healed.covered), _worth(kept.error, kept.covered)
        rows.append(("all", str(len(measured.counted)), *whole[0], *whole[1]))
    return rows


def _worth(error: float, covered: float) -> tuple[str, str]:
    return f"{error:.1f}", f"{100 * covered:.0f} %"


def _text(value: Value) -> str:
    """Return a figure with its standard error."""
    return "-" if value.value is None else f"{value.value:.1f} ± {value.stderr:.1f}"
