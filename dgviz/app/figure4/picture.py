"""Figure 4 as a PNG file, drawn by the browser from the SVG of the same figure."""

import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from dgviz.figures.figure4 import payload

_SCALE = 3  # 3,000 pixels wide: 25 cm at 300 dots per inch
SCRIPT = Path(payload.__file__).with_name("picture.js")


@cache
def _component() -> Callable[..., Any]:
    """Return the mounting command, registered once per process."""
    html = '<p role="status" data-el="said" style="margin: 0; font-size: 14px"></p>'
    return st.components.v2.component("dgviz_picture", html=html, js=SCRIPT.read_text(encoding="utf-8"))


def save_png(svg: str, name: str) -> None:
    """Let the browser draw an SVG at the size of print, and save it."""
    _component()(key="figure4-picture", data={"svg": svg, "name": name, "scale": _SCALE, "request": uuid.uuid4().hex})
