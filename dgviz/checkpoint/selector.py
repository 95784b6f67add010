r"""Tensors of a pair named in a few words: an exact name, a module, layers, or a regular expression.

``name=model.norm.weight``, ``module=self_attn.q_proj``, ``layers=3-7``, ``re=mlp\..*proj``; without a prefix a text
is an exact name or a module. A module is a run of whole components: ``layers.1`` is not ``layers.10``. ``[3]`` at the
end of a name is one matrix of a stack. ``not`` before any of these, as in ``not layers=3-7``, is everything else.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dgviz.checkpoint.expression import compile_expression
from dgviz.checkpoint.module_path import module_path
from dgviz.checkpoint.types import PairedTensor
from dgviz.errors import PairError

KINDS = ("name", "module", "layers", "re")
_NOT = "not "
_SHOWN = 3  # names like one that nothing has


@dataclass(frozen=True)
class Selector:
    """Which tensors a text names.

    Attributes
    ----------
    text : str
        As typed.

    Raises
    ------
    PairError
        If the text names nothing that could be: it is empty, no range of layers, or no expression that RE2 takes.
    """

    text: str

    def __post_init__(self) -> None:
        if self._others is not None:
            if self._others.index is not None:
                raise PairError(f"the selection {self.text!r}: 'not' stands before whole tensors, not one matrix")
            return
        if not self._value:
            raise PairError(f"the selection {self.text!r} is empty: give a name, module=, layers=3-7 or re=")
        if self.kind == "layers":
            _ = self._ranges
        if self.kind == "re":
            _ = self._expression

    @cached_property
    def _others(self) -> "Selector | None":
        """What is left out, of a selection of everything else."""
        return Selector(self.text[len(_NOT) :].strip()) if self.text.startswith(_NOT) else None

    @cached_property
    def kind(self) -> str:
        """One of `KINDS`, or empty for an exact name or a module."""
        prefix = self.text.partition("=")[0]
        return prefix if "=" in self.text and prefix in KINDS else ""

    @cached_property
    def index(self) -> int | None:
        """Which matrix of a stack; None for whole tensors."""
        if self._others is not None:
            return None
        found = re.search(r"\[(\d+)\]$", self.text) if self.kind in ("", "name") else None
        return int(found[1]) if found else None

    def finds(self, tensor: PairedTensor) -> bool:
        """Return whether a tensor, or one that it is tied to, is named, as a whole or by one of its matrices."""
        if self._others is not None:
            return not self._others.finds(tensor)
        return any(map(self._finds, (tensor.name, *tensor.aliases)))

    def covers(self, tensor: PairedTensor, index: int | None) -> bool:
        """Return whether one matrix of a tensor is named; an index of None stands for the whole tensor."""
        return (self.index is None or self.index == index) and self.finds(tensor)

    def near(self, tensors: Iterable[PairedTensor]) -> list[str]:
        """Return names and modules that resemble what nothing is called."""
        if self._others is not None:
            return []
        names = [tensor.name for tensor in tensors]
        if self.kind == "layers":
            levels = dict.fromkeys(module_path(name).level for name in names)
            return [f"layers={level}" for level in levels if level][-_SHOWN:]
        length = self._value.count(".") + 1
        parts = (name.split(".") for name in names)
        runs = (".".join(path[i : i + length]) for path in parts for i in range(len(path) - length + 1))
        known = dict.fromkeys([*names, *runs])
        close = difflib.get_close_matches(self._value, known, _SHOWN, 0.5)
        inside = [name for name in known if self._value in name]
        return list(dict.fromkeys([*close, *inside]))[:_SHOWN]

    @cached_property
    def _value(self) -> str:
        value = self.text.removeprefix(f"{self.kind}=") if self.kind else self.text
        return value if self.index is None else value.rpartition("[")[0]

    @cached_property
    def _ranges(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        """First and last layer of every range, each by one number or, in a stage of a network, by several."""
        ranges = []
        for part in self._value.split(","):
            found = re.fullmatch(r"\s*(\d+(?:\.\d+)*)(?:-(\d+(?:\.\d+)*))?\s*", part)
            first, last = (_numbers(found[end] or found[1]) for end in (1, 2)) if found else ((1,), (0,))
            if last < first:
                raise PairError(f"{self.text!r} is no range of layers: give layers=3, layers=3-7 or layers=0-2,9")
            ranges.append((first, last))
        return ranges

    @cached_property
    def _expression(self) -> Any:
        return compile_expression(self._value)

    def _finds(self, name: str) -> bool:
        if self.kind == "re":
            return self._expression.search(name) is not None
        if self.kind == "layers":
            layer = module_path(name).layer
            return bool(layer) and any(
                first <= layer[: len(first)] and layer[: len(last)] <= last for first, last in self._ranges
            )
        if self.kind != "module" and name == self._value:
            return True
        return self.kind != "name" and f".{self._value}." in f".{name}."


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
