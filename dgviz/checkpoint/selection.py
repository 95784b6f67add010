"""A choice of weights as a regular expression: anchored, short, and exact on the names of the pair.

What a map selects has to reach a command line. The expression is built from the structure of the names (one number
per layer, the same modules in each), checked against every name, and spelled out name by name where that fails.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dgviz.checkpoint.expression import compile_expression
from dgviz.checkpoint.module_path import cut_name
from dgviz.errors import PairError

_MOST_OPEN = 8  # kinds of layers with unlike choices, beyond which every number is spelled out


@dataclass(frozen=True)
class Selection:
    """Which weights are repaired: what `include` finds and `exclude` does not; empty strings restrict nothing."""

    include: str = ""
    exclude: str = ""

    def __post_init__(self) -> None:
        for option, expression in (("include", self.include), ("exclude", self.exclude)):
            try:
                compile_expression(expression)
            except PairError as error:
                raise PairError(f"--{option}: {error}; correct it") from None

    def drops(self, name: str) -> str:
        """Return which of the two leaves a name out: ``"excluded"``, ``"not_included"``, or empty for none."""
        if self.exclude and compile_expression(self.exclude).search(name):
            return "excluded"
        return "not_included" if self.include and not compile_expression(self.include).search(name) else ""

    def select(self, names: Iterable[str]) -> list[str]:
        """Return the names that are repaired."""
        return [name for name in names if not self.drops(name)]


def selection_of(names: Sequence[str], chosen: Iterable[str]) -> Selection:
    r"""Return the shortest selection that repairs exactly the chosen among all names."""
    wanted = set(chosen)
    inside, outside = ([name for name in names if (name in wanted) == side] for side in (True, False))
    if not outside:
        return Selection()
    if not inside:
        return Selection(exclude="^")  # every name: an empty include would restrict nothing
    include, exclude = expression_of(names, inside), expression_of(names, outside)
    return Selection(include=include) if len(include) <= len(exclude) else Selection(exclude=exclude)


def expression_of(names: Sequence[str], chosen: Sequence[str]) -> str:
    """Return an anchored expression that finds exactly the chosen among all names."""
    wanted = set(chosen)
    short = "|".join(f"^{term}" for term in _terms({cut_name(name): name in wanted for name in names}))
    found = re.compile(short)
    if all((found.search(name) is not None) == (name in wanted) for name in names):
        return short
    return "|".join(f"^{re.escape(name)}$" for name in chosen)


def _terms(rests: Mapping[tuple[str, ...], bool]) -> list[str]:
    """Return expressions that together find those rests of names that are wanted; an empty one finds all of them."""
    if all(rests.values()):
        return [""]
    ends = [re.escape(text) for (text, *more), wanted in rests.items() if wanted and not more]
    branches: dict[str, dict[str, dict[tuple[str, ...], bool]]] = {}
    for (text, *more), wanted in rests.items():
        if more:
            branches.setdefault(text, {}).setdefault(more[0], {})[tuple(more[1:])] = wanted
    terms = [f"{_alternatives(ends)}$"] if ends else []
    return terms + [re.escape(text) + term for text, own in branches.items() for term in _numbered(own)]


def _numbered(rests: Mapping[str, Mapping[tuple[str, ...], bool]]) -> list[str]:
    """Return expressions for numbers and the rests wanted behind each; a number is left open where that is safe."""
    alike: dict[str, list[str]] = {}
    for number, own in rests.items():
        if any(own.values()):
            terms = _terms(own)
            alike.setdefault((terms[0] if len(terms) == 1 else f"(?:{'|'.join(terms)})") or r"\.", []).append(number)
    if alike.keys() == {r"\."} and len(alike[r"\."]) == len(rests):
        return [""]
    terms, opened = [], []
    for rest in sorted(alike, key=len, reverse=True):  # left open, a long one may find all that a shorter one does
        wanted = ["".join(own) for number in alike[rest] for own, chosen in rests[number].items() if chosen]
        if all(any(pattern.match(text) for pattern in opened) for text in wanted):
            continue
        number = number_expression(map(int, alike[rest]))
        if len(alike) <= _MOST_OPEN:
            pattern = re.compile(rest)
            others = ("".join(text) for own in rests.values() for text, chosen in own.items() if not chosen)
            if not any(pattern.match(text) for text in others):
                opened.append(pattern)
                number = r"\d+"
        terms.append(number + rest)
    return terms


def _alternatives(tails: Sequence[str]) -> str:
    """Return an expression for any of several endings, with what they share written once."""
    if len(tails) == 1:
        return tails[0]
    shared = r"\.weight" if all(tail.endswith(r"\.weight") for tail in tails) else ""
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
    spelt = ("".join(map(str, range(*run))) for run in runs(digits))
    return f"[{''.join(run if len(run) < 3 else f'{run[0]}-{run[-1]}' for run in spelt)}]"


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges (begin, end)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found
