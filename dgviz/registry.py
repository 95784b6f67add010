"""Named objects in their order: rules, shrinkers, figures."""

from typing import Protocol, TypeVar

from dgviz.errors import DgvizError
from dgviz.words import near


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """Its key."""


T = TypeVar("T", bound=Named)


class Registry(dict[str, T]):
    """Objects by their names, in the order in which pages and messages list them."""

    def __init__(self, what: str, error: type[DgvizError], *items: T) -> None:
        super().__init__((item.name, item) for item in items)
        self._what, self._error = what, error

    def find(self, name: str) -> T:
        """Return the object of that name; the error for another one names those there are."""
        if name not in self:
            raise self._error(f"no {self._what} {name!r}; there are {', '.join(self)}{near(name, self)}")
        return self[name]
