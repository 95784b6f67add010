"""Errors and warnings on a page, and text that Markdown must not read: names and links may hold any character."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dgviz.errors import DgvizError
from dgviz.jobs import RemoteError, Superseded, WorkerDied


def show_error(error: Exception) -> None:
    """Print an error's sentence, not as Markdown: names may hold any character."""
    with st.container(border=True):
        st.markdown(":red[:material/error: **This did not work**]")
        st.text(str(error))


def show_warning(text: str) -> None:
    """Print a warning's sentence, not as Markdown."""
    with st.container(border=True, horizontal=True, gap="small"):
        st.markdown(":orange[:material/warning:]", width="content")
        st.text(text)


def as_sentence(warning: str) -> str:
    """Return a warning of a rule or a repair, which commands print after a name, as a sentence of its own."""
    return f"{warning[0].upper()}{warning[1:]}."


_BY_ITSELF = re.compile(r":(?=//|[\w/+-]+:)|www(?=\.)|(?<=\w)(?=@)", re.IGNORECASE)
"""What becomes a link, an icon or an emoji without any mark, and by a backslash before it too."""


def plain(text: str) -> str:
    """Return text that Markdown, in labels and tooltips too, prints as it is; addresses in it are no links."""
    apart = _BY_ITSELF.sub("\\g<0>\u2060", text)  # a word joiner, which is not seen
    return "".join(f"\\{letter}" if letter in "\\`*_[]#~$<>|" else letter for letter in apart)


def code_span(text: str) -> str:
    """Return text as code for Markdown, backticks in it included."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


@contextmanager
def answered() -> Iterator[None]:
    """Stop the page with a sentence when the worker cannot answer, quietly when a newer run of it has taken over."""
    try:
        yield
    except Superseded:
        st.stop()
    except (DgvizError, WorkerDied, RemoteError, OSError) as error:
        show_error(error)
        st.stop()
