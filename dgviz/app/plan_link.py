"""A link that brings a plan along: it changes nothing by itself, and is taken with one click."""

from urllib.parse import urlencode

import orjson
import streamlit as st

from dgviz.app.messages import show_error
from dgviz.app.plans import read_saved, save_plan
from dgviz.app.state import View, address
from dgviz.errors import DgvizError, PlanError
from dgviz.repair.plan import RepairPlan

_GIVEN = "overrides"  # in the query of a link; no part of the view, so that nothing follows from it
_LONGEST = 6000  # characters that browsers, mail and chats leave whole


def draw_link(view: View) -> None:
    """Show a link to what is in view that carries the overrides."""
    given = {_GIVEN: orjson.dumps(read_saved(view).overrides).decode()}
    here = (st.context.url or "").partition("?")[0]
    link = f"{here}?{urlencode(address(plan='open') | given)}"
    if len(link) > _LONGEST:
        st.caption(
            f"A link with this plan would have {len(link):,} characters, more than the {_LONGEST:,} that stay whole "
            "everywhere: save the plan and send the file."
        )
        return
    st.caption("Copy link with plan: whoever opens it is asked before the plan is taken.")
    st.code(link, language=None)


def draw_given(view: View) -> None:
    """Say that the link brings a plan, and offer to use it."""
    text = st.query_params.get(_GIVEN)
    if text is None:
        return
    try:
        overrides = _read(text)
    except DgvizError as error:
        show_error(error)
        st.button("Leave it", key="given-leave", on_click=_forget)
        return
    if overrides == read_saved(view).overrides:
        return
    count = len(overrides)
    with st.container(border=True):
        st.markdown(f"This link brings a plan: **{count} override{'' if count == 1 else 's'}**.")
        st.code("\n".join(overrides) or "none: every weight gets the default", language=None)
        with st.container(horizontal=True):
            st.button(
                "Use it", key="given-use", icon=":material/playlist_add_check:", on_click=_use, args=(view, overrides)
            )
            st.button("Leave it", key="given-leave", type="tertiary", on_click=_forget)


def _read(text: str) -> tuple[str, ...]:
    """Return the overrides that a link holds, checked by what they say alone."""
    if len(text) > _LONGEST:
        raise PlanError(f"the plan of this link has {len(text):,} characters, more than the {_LONGEST:,} of a link")
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PlanError(f"the plan of this link is no JSON ({error}); ask for the link again") from None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise PlanError("the plan of this link is no list of overrides; ask for the link again")
    try:
        return tuple(map(str, RepairPlan(overrides=found).overrides))
    except DgvizError as error:
        raise PlanError(f"the plan of this link: {error}") from None


def _use(view: View, overrides: tuple[str, ...]) -> None:
    """Make the link's overrides those of the pair; undo goes back."""
    save_plan(view, read_saved(view).changed(overrides))
    _forget()


def _forget() -> None:
    """Take the plan out of the link."""
    st.query_params.pop(_GIVEN, None)
