"""Look at the singular spectrum of a fine-tuning update and repair it with DG-Hard."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgviz import errors
    from dgviz.api import Pair, Repaired, Scan, Update, open_pair

__version__ = "0.2.0"
__all__ = ["Pair", "Repaired", "Scan", "Update", "errors", "open_pair"]


def __getattr__(name: str) -> Any:
    """Return what the package exports, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'dgviz' has no attribute {name!r}; it has {', '.join(__all__)}")
    return (
        importlib.import_module("dgviz.errors")
        if name == "errors"
        else getattr(importlib.import_module("dgviz.api"), name)
    )


def __dir__() -> list[str]:
    """Return the names that the package exports."""
    return [*__all__, "__version__"]
