"""The dashboard's HTML document: Streamlit's, with our title, the style of our places, and what they need later."""

import re
from pathlib import Path
from string import Template

import streamlit
from streamlit import config

_STATIC = Path(streamlit.__file__).parent / "static"
_STYLE, SCRIPT = (Path(__file__).with_suffix(suffix) for suffix in (".css", ".js"))
_LATER = ("PlotlyChart", "DataFrame")  # Streamlit's modules of figures and tables; the first figure needs neither


def plain_document() -> str:
    """Return the document as Streamlit has it."""
    return (_STATIC / "index.html").read_text(encoding="utf-8")


def document() -> str:
    """Return the document of every place, by Streamlit's options as they are now.

    Style that a script sends arrives with what it is for or later, and so moves what is drawn already.
    """
    page = re.sub("<title>.*?</title>", "<title>dgviz</title>", plain_document())
    return page.replace("</head>", f"<style>{_style()}</style><script>{_script()}</script></head>")


def _script() -> str:
    """Return the script that imports what is needed later, of what this Streamlit has."""
    found = [file for name in _LATER for file in _STATIC.glob(f"static/js/{name}.*.js")]
    later = " ".join(f"./{file.relative_to(_STATIC).as_posix()}" for file in found)
    return Template(SCRIPT.read_text(encoding="utf-8")).substitute(later=later)


def _style() -> str:
    """Return the style with the colours of both schemes."""
    options = {"ground": "backgroundColor", "border": "borderColor", "text": "textColor", "accent": "primaryColor"}
    colours = {
        f"{kind}_{name}": config.get_option(f"theme.{kind}.{option}")
        for kind in ("light", "dark")
        for name, option in options.items()
    }
    return Template(_STYLE.read_text(encoding="utf-8")).substitute(colours)
