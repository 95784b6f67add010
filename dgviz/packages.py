"""Packages that only part of the work needs: what is missing of them is said before that work begins."""

import importlib.util

from dgviz.errors import PackageError

EXTRAS = {
    "transformers": "models",
    "peft": "lora",
    "sklearn": "demo",
    "lm_eval": "evaluate",
    "s3fs": "s3",
    "gcsfs": "gs",
    "ray": "ray",
    "anywidget": "notebook",
}
"""By module, the extra of dgviz that installs its package."""


def is_installed(module: str) -> bool:
    """Return whether a module can be imported; it is not."""
    return importlib.util.find_spec(module) is not None


def need(purpose: str, *modules: str) -> None:
    """Raise where a package is not installed.

    Parameters
    ----------
    purpose : str
        What needs it, as the sentence's subject.
    *modules : str
        Top-level modules of the packages.

    Raises
    ------
    PackageError
        With the line that installs it.
    """
    for module in modules:
        if not is_installed(module):
            source = f"'dgviz[{EXTRAS[module]}]'" if module in EXTRAS else module
            raise PackageError(
                f"{purpose} needs {module}, which is not installed: run `python -m pip install {source}`"
            )
