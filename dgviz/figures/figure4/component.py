"""Figure 4 as a component of the browser: one ES module, its style and markup, what it asks for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgviz.figures.figure4.maps import Window

_HERE = Path(__file__).parent
# Pure mathematics first, then drawing, then the controls.
_SCRIPTS = (
    "math.js",
    "choices.js",
    "paint.js",
    "panels.js",
    "figure4.js",
    "spectrum.js",
    "model.js",
    "search.js",
    "direction.js",
    "keys.js",
    "compare.js",
    "workbench.js",
)


def script() -> str:
    """Return the JavaScript of the component; its default export draws it into an element."""
    return _text(*_SCRIPTS)


def script_files() -> list[Path]:
    """Return the files that make the module, in its order."""
    return [_HERE / name for name in _SCRIPTS]


def style() -> str:
    """Return its style sheet."""
    return _text("figure4.css", "workbench.css")


def markup() -> str:
    """Return its elements."""
    return _text("workbench.html")


def _text(*names: str) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


def window_of(asked: Mapping[str, Any], pooling: Mapping[str, Any], weight: str, shape: tuple[int, int]) -> Window:
    """Return the part of a weight that the component has asked for, and how its blocks are pooled."""
    window = Window(pooling="rms" if pooling.get("pooling") == "rms" else "max")
    if asked.get("weight") != weight or not asked.get("rows"):
        return window
    rows, columns = (
        (max(0, min(int(first), length - 1)), max(1, min(int(end), length)))
        for (first, end), length in zip((asked["rows"], asked["columns"]), shape, strict=True)
    )
    return replace(window, rows=rows, columns=columns) if rows[0] < rows[1] and columns[0] < columns[1] else window
