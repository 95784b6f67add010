"""The plan of the open pair: its overrides, on disk at every change, so that it survives a reload and has an undo.

The default method and rule are part of the view and so of the link; what single weights get belongs to the pair, and
two tabs on one pair see one plan.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dgviz.app.pair import checkpoint_path, state_dir
from dgviz.app.rules import link_params
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import AccessError, DgvizError
from dgviz.files import read_record, write_json
from dgviz.repair.overrides import Override, refuse_idle
from dgviz.repair.plan import RepairPlan
from dgviz.rmt.threshold import find_rule

PLAN_CHANGED = "plan-changed"
"""Set in the session where a part of a page has changed the plan, which stands beside the page too."""

_STEPS = 50  # that can be undone


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
        content = read_record(file, "overrides", "past")
        if content is None:
            return SavedPlan()
        return SavedPlan(_overrides(content["overrides"]), tuple(map(_overrides, content["past"])))
    except (DgvizError, TypeError) as error:
        return SavedPlan(
            problem=f"the plan of this pair, {file}, cannot be read ({error}); a change begins a new one"
        )


def _overrides(texts: Any) -> tuple[str, ...]:
    """Return overrides that were stored, each of which says what it should."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{texts!r} is no list of overrides")
    for text in texts:
        Override.parse(text).applied(RepairPlan())
    return tuple(texts)


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


def _file(view: View) -> Path:
    sides = "\n".join(str(checkpoint_path(name).absolute()) for name in (view.base, view.tuned))
    return state_dir() / "plans" / f"{hashlib.sha256(sides.encode()).hexdigest()[:24]}.json"
