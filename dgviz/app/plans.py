"""The plan of the open pair: its overrides, on disk at every change, so that it survives a reload and has an undo.

The default method and rule are part of the view and so of the link; what single weights get belongs to the pair, and
two tabs on one pair see one plan.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import streamlit as st

from dgviz.app.messages import show_error, show_warning
from dgviz.app.pair import checkpoint_path, state_dir
from dgviz.app.rules import link_params
from dgviz.app.state import View, address, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import AccessError, DgvizError, PlanError
from dgviz.files import pretty_json, write_json
from dgviz.repair.overrides import Override, refuse_idle
from dgviz.repair.plan import RepairPlan, parse_plan
from dgviz.rmt.threshold import find_rule

PLAN_CHANGED = "plan-changed"
"""Set in the session where a part of a page has changed the plan, which stands beside the page too."""

_STEPS = 50  # that can be undone
_LONGEST_LINK = 6000  # characters of the query: what browsers, proxies and chats pass on


@dataclass(frozen=True)
class SavedPlan:
    """The overrides of a pair, and what they were before each change.

    Attributes
    ----------
    overrides : tuple of str
        As typed, in their order.
    past : tuple of tuple of str
        Earlier ones, the last before the present ones at the end.
    problem : str
        Why the file's own could not be read.
    """

    overrides: tuple[str, ...] = ()
    past: tuple[tuple[str, ...], ...] = ()
    problem: str = ""

    def changed(self, overrides: Sequence[str]) -> "SavedPlan":
        """Return the plan with other overrides, and the present ones to go back to."""
        if tuple(overrides) == self.overrides:
            return self
        return SavedPlan(tuple(overrides), (*self.past, self.overrides)[-_STEPS:])

    def undone(self) -> "SavedPlan":
        """Return the plan before the last change."""
        return SavedPlan(self.past[-1], self.past[:-1]) if self.past else self


def read_saved(view: View) -> SavedPlan:
    """Return the plan of the pair in view; where its file cannot be read, an empty one that says so."""
    try:
        file = _file(view)
    except AccessError:  # the pair may not be opened here; that is said where it would be shown
        return SavedPlan()
    try:
        content = orjson.loads(file.read_bytes())
        return SavedPlan(tuple(map(str, content["overrides"])), tuple(map(tuple, content["past"])))
    except FileNotFoundError:
        return SavedPlan()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return SavedPlan(
            problem=f"the plan of this pair, {file}, cannot be read ({error}); a change begins a new one"
        )


def save_plan(view: View, plan: SavedPlan) -> None:
    """Keep the plan of the pair in view."""
    file = _file(view)
    pair = {side: str(checkpoint_path(getattr(view, side))) for side in ("base", "tuned")}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"pair": pair, "overrides": plan.overrides, "past": plan.past})
        st.session_state[PLAN_CHANGED] = True
    except OSError as error:
        st.session_state["plan-error"] = f"the plan cannot be kept in {file}: {error.strerror or error}"


def add_override(view: View, text: str) -> None:
    """Put an override last, in the place of one on the very same selection."""
    saved = read_saved(view)
    selection = Override.parse(text).selector.text
    others = [other for other in saved.overrides if Override.parse(other).selector.text != selection]
    save_plan(view, saved.changed([*others, text]))


def drop_override(view: View, text: str) -> None:
    """Take an override out of the plan."""
    saved = read_saved(view)
    save_plan(view, saved.changed([other for other in saved.overrides if other != text]))


def undo_plan(view: View) -> None:
    """Go back to what was before the last change."""
    save_plan(view, read_saved(view).undone())


def take_plan(view: View, plan: RepairPlan) -> None:
    """Make a plan that of the pair in view: its default becomes the view's, its overrides the saved ones."""
    default = {"include": plan.include or "", "exclude": plan.exclude or "", "shrinker": plan.shrinker}
    rule, method = find_rule(plan.rule), plan.recipe
    change_view(rule=plan.rule, params=link_params(rule, dict(plan.params)), tau="", **default)
    change_view(method=plan.method, settings=link_params(method, dict(plan.method_params)))
    st.session_state["dtype"] = plan.dtype
    save_plan(view, read_saved(view).changed([str(override) for override in plan.overrides]))


def plan_link(plan: RepairPlan) -> str:
    """Return a link to what is in view that brings a plan, which whoever follows it is asked to take.

    Raises
    ------
    PlanError
        If the plan is too long for a link.
    """
    query = urlencode(address(plan="open", take=orjson.dumps(_changed(plan)).decode()))
    if len(query) > _LONGEST_LINK:
        raise PlanError(
            f"a link that brings this plan would have {len(query):,} characters; what browsers and chats pass on is "
            f"{_LONGEST_LINK:,}: save the plan as a file"
        )
    return f"{str(st.context.url or '').partition('?')[0]}?{query}"


def offer_plan(view: View) -> None:
    """Say what plan a link brings, and let the user take or leave it; a link changes nothing by itself."""
    if not view.take:
        return
    try:
        if len(view.take) > _LONGEST_LINK:
            raise PlanError(f"the plan of this link has {len(view.take):,} characters, more than {_LONGEST_LINK:,}")
        plan = parse_plan(view.take.encode("utf-8", "replace"), "of this link")
    except DgvizError as error:
        show_error(error)
        plan = None
    with st.container(border=True):
        if plan is not None:
            st.markdown(
                "**This link brings a plan.** It takes the place of the one below, which an undo brings back."
            )
            st.code(pretty_json(_changed(plan)).decode(), language="json")
        with st.container(horizontal=True):
            if plan is not None:
                st.button("Use it", key="take-linked", type="primary", on_click=_take_linked, args=(view, plan))
            st.button("Leave it", key="leave-linked", on_click=change_view, kwargs={"take": ""})


def _changed(plan: RepairPlan) -> dict[str, Any]:
    """Return what a plan says otherwise than DG-Hard as published, as JSON values."""
    usual = RepairPlan().to_json()
    return {name: value for name, value in plan.to_json().items() if value != usual[name]}


def _take_linked(view: View, plan: RepairPlan) -> None:
    take_plan(view, plan)
    change_view(take="")


def planned(view: View, pair: CheckpointPair, **fields: Any) -> RepairPlan:
    """Return the plan of the pair in view, its overrides included.

    Parameters
    ----------
    view, pair
        What is in view.
    **fields : any
        The default, as fields of `RepairPlan`.

    Raises
    ------
    DgvizError
        If an override does not fit the default or the pair.
    """
    plan = RepairPlan(**fields, overrides=read_saved(view).overrides)
    refuse_idle(plan, pair)
    return plan


def draw_problem(saved: SavedPlan) -> None:
    """Say what kept the plan from being read or written."""
    for problem in filter(None, (saved.problem, st.session_state.pop("plan-error", ""))):
        show_error(PlanError(problem))


def draw_overrides(view: View) -> None:
    """List the overrides, each with a way to take it out; add one by its words; undo."""
    saved = read_saved(view)
    draw_problem(saved)
    for number, text in enumerate(saved.overrides):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Take out",
                key=f"override-{number}",
                icon=":material/close:",
                on_click=drop_override,
                args=(view, text),
                help="What it selected gets the default again, or what another override says.",
            )
            st.code(text, language=None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Add an override",
            key="override-typed",
            placeholder="layers=3-7: factor=0.5, or lm_head: keep=tuned",
            help="SELECTION: SETTING. Of several overrides that select a weight the last one counts.",
            on_change=_add_typed,
            args=(view,),
        )
        st.button(
            "Undo",
            key="override-undo",
            icon=":material/undo:",
            disabled=not saved.past,
            on_click=undo_plan,
            args=(view,),
            help="The plan is kept at every change; this goes back one.",
        )
    if problem := st.session_state.pop("override-problem", ""):
        show_warning(problem)


def _add_typed(view: View) -> None:
    """Add what was typed; what is no override stays in the field, with the reason."""
    text = st.session_state["override-typed"].strip()
    if not text:
        return
    try:
        parsed = Override.parse(text)
        parsed.applied(RepairPlan())
        add_override(view, str(parsed))
    except DgvizError as error:
        st.session_state["override-problem"] = str(error)
    else:
        st.session_state["override-typed"] = ""


def _file(view: View) -> Path:
    sides = "\n".join(str(checkpoint_path(name).absolute()) for name in (view.base, view.tuned))
    return state_dir() / "plans" / f"{hashlib.sha256(sides.encode()).hexdigest()[:24]}.json"
