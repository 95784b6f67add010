"""Errors and warnings on a page, and text that Markdown must not read: names and links may hold any character."""

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


def plain(text: str) -> str:
    """Return text that Markdown, in labels and tooltips too, prints as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]#~$<>|" else letter for letter in text)


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
