"""A choice of weights as a regular expression: anchored, short, and exact on the names of the pair.

What a map selects has to reach a command line. The expression is built from the structure of the names (one number
per layer, the same modules in each), checked against every name, and spelled out name by name where that fails.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dgviz.errors import PairError

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Mask:
    """Which weights are repaired: what `include` finds and `exclude` does not; empty strings restrict nothing."""

    include: str = ""
    exclude: str = ""

    def select(self, names: Iterable[str]) -> list[str]:
        """Return the names that are repaired, as `dgviz.checkpoint.pair_checkpoints` decides it."""
        include, exclude = _compiled("include", self.include), _compiled("exclude", self.exclude)
        return [
            name
            for name in names
            if (include is None or include.search(name)) and not (exclude is not None and exclude.search(name))
        ]


def _compiled(what: str, expression: str) -> re.Pattern[str] | None:
    """Return an expression ready to search with, None for the empty one."""
    try:
        return re.compile(expression) if expression else None
    except re.error as error:
        raise PairError(f"the {what} expression {expression!r} is not valid: {error}") from error


def mask_of(names: Sequence[str], chosen: Iterable[str]) -> Mask:
    r"""Return the shortest mask that repairs exactly the chosen among all names."""
    wanted = set(chosen)
    inside, outside = ([name for name in names if (name in wanted) == side] for side in (True, False))
    if not outside:
        return Mask()
    if not inside:
        return Mask(exclude="^")  # every name: an empty include would restrict nothing
    include, exclude = expression_of(names, inside), expression_of(names, outside)
    return Mask(include=include) if len(include) <= len(exclude) else Mask(exclude=exclude)


def expression_of(names: Sequence[str], chosen: Sequence[str]) -> str:
    """Return an anchored expression that finds exactly the chosen among all names."""
    wanted = set(chosen)
    short = "|".join(_terms(names, wanted))
    found = re.compile(short)
    if all((found.search(name) is not None) == (name in wanted) for name in names):
        return short
    return "|".join(f"^{re.escape(name)}$" for name in chosen)


def _split(name: str) -> tuple[str, str, str]:
    """Return a name as what stands before its first number, the number, and the rest with other numbers open."""
    first = _NUMBER.search(name)
    if first is None:
        return name, "", ""
    return name[: first.start()], first[0], _NUMBER.sub("\0", name[first.end() :])


def _terms(names: Sequence[str], wanted: set[str]) -> list[str]:
    """Return expressions that together find what is wanted: layers by modules, with runs of numbers contracted."""
    every: dict[tuple[str, str], set[str]] = {}
    chosen: dict[tuple[str, str], set[str]] = {}
    for name in names:
        prefix, number, rest = _split(name)
        every.setdefault((prefix, rest), set()).add(number)
        if name in wanted:
            chosen.setdefault((prefix, rest), set()).add(number)
    alike: dict[tuple[str, frozenset[str], bool], list[str]] = {}
    for (prefix, rest), numbers in chosen.items():
        whole = numbers == every[prefix, rest]
        alike.setdefault((prefix, frozenset() if whole else frozenset(numbers), whole), []).append(rest)
    terms = []
    for (prefix, numbers, whole), rests in alike.items():
        head = f"^{re.escape(prefix)}"
        if rests == [""] and (prefix, "") in chosen and "" in every[prefix, ""]:
            terms.append(f"{head}$")
            continue
        others = [rest for (other, rest), have in every.items() if other == prefix and (whole or have & numbers)]
        if len(others) == len(rests):
            terms.append(head if whole else f"{head}{number_expression(map(int, numbers))}\\.")
            continue
        tails = [re.escape(rest).replace("\0", r"\d+") for rest in rests]
        tail = tails[0] if len(tails) == 1 else _alternatives(tails)
        middle = r"\d+" if whole else number_expression(map(int, numbers))
        terms.append(f"{head}{middle}{tail}$")
    return terms


def _alternatives(tails: Sequence[str]) -> str:
    """Return an expression for any of several endings, with what they share written once."""
    shortest = min(tails, key=len)
    ends = 0
    while ends < len(shortest) and len({tail[-ends - 1] for tail in tails}) == 1:
        ends += 1
    shared = r"\.weight" if shortest.endswith(r"\.weight") and ends >= len(r"\.weight") else ""
    cut = [tail.removesuffix(shared) for tail in tails]
    return f"(?:{'|'.join(cut)}){shared}"


def number_expression(numbers: Iterable[int]) -> str:
    r"""Return an expression for exactly these numbers, runs within a ten contracted."""
    tens: dict[str, list[int]] = {}
    for number in sorted(set(numbers)):
        tens.setdefault(str(number)[:-1], []).append(number % 10)
    by_digits: dict[str, list[str]] = {}
    for ten, digits in tens.items():
        by_digits.setdefault(_digits(digits), []).append(ten)
    parts = []
    for digits, leading in by_digits.items():
        single = [ten for ten in leading if len(ten) == 1]
        if len(single) > 1 and len(single) == len([ten for ten in leading if ten]):
            parts += [digits] if "" in leading else []
            parts.append(f"{_digits([int(ten) for ten in single])}{digits}")
        else:
            parts += [f"{ten}{digits}" for ten in leading]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _digits(digits: Sequence[int]) -> str:
    """Return one digit, or a class of several with runs of three or more contracted."""
    if len(digits) == 1:
        return str(digits[0])
    runs: list[list[int]] = []
    for digit in digits:
        if runs and digit == runs[-1][-1] + 1:
            runs[-1].append(digit)
        else:
            runs.append([digit])
    return "[" + "".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else "".join(map(str, r)) for r in runs) + "]"
