"""What the table says of the alternatives to DG-Hard, in sentences that pages, terminals and documents share."""

from dgviz.forecast.fit import INTERVAL
from dgviz.forecast.foretell import OUTCOMES, Calibration, calibration
from dgviz.forecast.table import Standing, stand

_ALIKE = "no pair was measured yet"


def averaging_leads(measured: Calibration | None = None) -> bool:
    """Return whether averaging with base did better than DG-Hard at the same target on the pairs measured."""
    return stand((measured or calibration()).pairs, "wise_ft").better


def averaging_words(measured: Calibration | None = None) -> str:
    """Return how averaging with base stands against DG-Hard at the same target: ``on N of M pairs ...``."""
    found = stand((measured or calibration()).pairs, "wise_ft")
    return _words(found, "at the same target")


def control_words(measured: Calibration | None = None) -> str:
    """Return how the whole update, as long as what DG-Hard keeps, stands against DG-Hard."""
    found = stand((measured or calibration()).pairs, "norm_matched")
    if not found.pairs:
        return _ALIKE
    return f"{_words(found, 'at the same length')}, and was at least as good on both sides on {found.both}"


def control_leads(measured: Calibration | None = None) -> bool:
    """Return whether the whole update at DG-Hard's length did as well or better on both sides on most pairs."""
    found = stand((measured or calibration()).pairs, "norm_matched")
    return found.better and found.both > found.pairs / 2


def _words(found: Standing, where: str) -> str:
    if not found.pairs:
        return _ALIKE
    pairs = f"all {found.pairs}" if found.ahead == found.pairs else f"{found.ahead} of the {found.pairs}"
    less = f" and less on {found.behind}" if found.behind else ""
    side = "more" if found.mean >= 0 else "less"
    return (
        f"on {pairs} pairs measured it healed more than DG-Hard {where}{less}, on average {abs(found.mean):.1f} ± "
        f"{found.stderr:.1f} points {side}"
    )


def worth_words(measured: Calibration | None = None) -> str:
    """Return what the share dropped foretells, how well, and whether a number is given."""
    measured = measured or calibration()
    counted, families = len(measured.counted), len(measured.families)
    if families < 2:
        return (
            f"{counted} pairs of {families} families were measured: too few to say what the share dropped foretells."
        )
    healed, kept = (measured.outcomes[name] for name in OUTCOMES)
    parts = [
        f"Over {counted} pairs of {families} families the share of the update's energy that DG-Hard drops has a rank "
        f"correlation of {healed.correlation:.2f} with healing and of {kept.correlation:.2f} with the target kept"
    ]
    for name, outcome in measured.outcomes.items():
        refused = measured.refusal(name)
        parts.append(
            f"Foretold from the other families, {OUTCOMES[name]} is missed by {outcome.error:.1f} points on average, "
            f"and the {100 * INTERVAL:.0f} % range holds {100 * outcome.covered:.0f} % of the pairs, "
            f"{100 * outcome.worst.covered:.0f} % of the {outcome.worst.family}: "
            + (f"no number of {OUTCOMES[name]} is given" if refused else f"a number of {OUTCOMES[name]} is given")
        )
    return ". ".join(parts) + "."
