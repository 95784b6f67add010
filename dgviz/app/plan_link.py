"""A link that brings a plan: made to be copied, and taken only by whoever says so."""

from typing import Any
from urllib.parse import urlencode

import orjson
import streamlit as st

from dgviz.app.messages import show_error
from dgviz.app.plans import take_plan
from dgviz.app.state import View, address, change_view
from dgviz.errors import DgvizError, PlanError
from dgviz.files import pretty_json
from dgviz.repair.plan import RepairPlan, parse_plan

_LONGEST_LINK = 6000  # characters of the query: what browsers, proxies and chats pass on


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
