"""The table of all pairs and what it is worth, as rows for terminals and documents."""

from collections.abc import Iterable, Sequence
from statistics import median

from dgviz.forecast.foretell import LITTLE, MUCH, OUTCOMES, Calibration
from dgviz.forecast.table import CalibratedPair, Value, stand

PAIR_TITLES = (
    "pair", "family", "dropped, %", "damage, points", "healed", "target kept", "WiSE-FT: alpha", "healed",
    "target kept", "ahead", "D at the same length: healed", "target kept",
)  # fmt: skip
BAND_TITLES = ("dropped", "pairs", "healed: median (range)", "target kept: median (range)", "WiSE-FT ahead, points")
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


def band_rows(measured: Calibration) -> list[tuple[str, ...]]:
    """Return a row per band of the share dropped, the outer ones being those that have words of their own."""
    rows = []
    for low, high in ((0, LITTLE), (LITTLE, 40), (40, MUCH), (MUCH, 100)):
        own = [pair for pair in measured.counted if low <= max(pair.dropped, 0) < high or pair.dropped == high == 100]
        healed, kept = ([getattr(pair.dg_hard, name).value for pair in own] for name in OUTCOMES)
        found = stand(own, "wise_ft")
        ahead = f"{found.mean:.1f} ± {found.stderr:.1f}" if len(own) > 1 else "-"
        rows.append((f"{low:g} to {high:g} %", str(len(own)), _spread(healed), _spread(kept), ahead))
    return rows


def _spread(values: Sequence[float]) -> str:
    """Return median and ends."""
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "-"


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
