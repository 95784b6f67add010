"""What a table holds in one place, and which entries of a column are the best."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BEST, SECOND = "best", "second"
MISSING, UNDEFINED = "missing", "undefined"


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes
    ----------
    value : float, str or None
        None where there is no number.
    digits : int
        Behind the point.
    why : str
        What stands there in place of a number.
    mark : str
        ``best``, ``second`` or empty.
    """

    value: float | str | None
    digits: int = 1
    why: str = MISSING
    mark: str = ""

    def __str__(self) -> str:
        """Return what is shown, without its mark."""
        if self.value is None:
            return self.why
        return self.value if isinstance(self.value, str) else f"{self.value:.{self.digits}f}"


def rank_entries(
    entries: Sequence[Entry], gap: float, second: bool = False, higher_is_better: bool = True
) -> list[Entry]:
    """Return entries with the best marked, and where asked the second best; what is level shares a mark.

    Parameters
    ----------
    entries : sequence of Entry
        Those without a number get no mark, nor does a number that is alone.
    gap : float
        Values that differ by less are level.
    second : bool
        Whether the second best is marked too.
    higher_is_better : bool
        Otherwise the lowest is the best.
    """
    marks: dict[int, str] = {}
    for mark in (BEST, SECOND) if second else (BEST,):
        left = {
            i: (1 if higher_is_better else -1) * entry.value
            for i, entry in enumerate(entries)
            if isinstance(entry.value, int | float) and i not in marks
        }
        if len(left) + len(marks) > 1:
            top = max(left.values(), default=0.0)
            marks |= {i: mark for i, value in left.items() if top - value < gap * (1 - 1e-9)}
    return [dataclasses.replace(entry, mark=marks.get(i, "")) for i, entry in enumerate(entries)]


def winners(values: Mapping[str, float | None], gap: float) -> list[str]:
    """Return whose value is the highest, all that are level with it."""
    ranked = rank_entries([Entry(value) for value in values.values()], gap)
    return [name for name, entry in zip(values, ranked, strict=True) if entry.mark]
