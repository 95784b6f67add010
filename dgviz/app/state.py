"""What one is looking at: the pair and the view, kept in the URL and in the session.

The URL is the record: a link opened elsewhere shows the same thing. The session keeps a copy because switching pages
clears the query; every page run first reconciles the two, the URL winning.
"""

import time
from dataclasses import dataclass, fields, replace
from typing import Any

import streamlit as st

_CLOSED = "none"  # as the value of `base`: no pair open, on purpose
FIRST_PAIR = {"base": "demo:base", "tuned": "demo:noisy"}
# A weight of the demo on which there is something to see, in both fine-tunes; not the best, an instructive one.
_DEMO_WEIGHT = "vit.encoder.layer.1.attention.output.dense.weight"


@dataclass(frozen=True)
class View:
    """The pair, the weight, the threshold, the method, the selection and the device in view; empty for none.

    `against` is what is compared as A, in the words of an override (`rule=energy, fraction=0.8`, `method=ties`), with
    `tuned=NAME` for another fine-tune of the family; `beside` is B in the same words, what they leave out being as in
    view, and empty for what is in view. `others` are further tuned checkpoints of the base (`split_others`),
    `quantity` is what the map of the model shows; `include` and `exclude` are expressions on names, as for an export;
    `settings` are the method's parameters. `show` is what the workbench shows of the pair; `plan` is ``open`` where
    the plan stands beside it; `take` is a plan that a link brings, as JSON, until somebody takes or leaves it.
    """

    base: str = ""
    tuned: str = ""
    others: str = ""
    weight: str = ""
    slice: str = ""
    rule: str = "dg_hard"
    params: str = ""
    tau: str = ""
    against: str = ""
    beside: str = ""
    quantity: str = ""
    method: str = "dg_hard"
    settings: str = ""
    shrinker: str = "hard"
    include: str = ""
    exclude: str = ""
    device: str = "auto"
    show: str = ""
    plan: str = ""
    take: str = ""

    @property
    def has_pair(self) -> bool:
        """Whether a pair is chosen."""
        return bool(self.base and self.tuned and self.base != _CLOSED)

    @property
    def index(self) -> int | None:
        """Which matrix of a stack, or None."""
        return int(self.slice) if self.slice.isdecimal() else None

    def rule_params(self) -> dict[str, str]:
        """Return the rule's parameters that differ from their defaults, as typed."""
        return _named(self.params)

    def method_params(self) -> dict[str, str]:
        """Return the method's parameters that differ from their defaults, as typed."""
        return _named(self.settings)


def _named(text: str) -> dict[str, str]:
    """Return the values of ``name:value,name:value``."""
    return dict(item.split(":", 1) for item in text.split(",") if ":" in item)


_ECHO_SECONDS = 2.0
_UNASKED = "view-unasked-weight"  # named in the URL, it would be an entry of the history
_KEYS = tuple(field.name for field in fields(View))
_DEFAULTS = View()


def current_view() -> View:
    """Return what is in view: the URL's, where it holds a view of its own, else the session's; at first the demo."""
    given = {key: st.query_params[key] for key in _KEYS if key in st.query_params}
    remembered: dict[str, str] = st.session_state.get("view", {})
    if given and given != _in_url(remembered) and not _is_echo(given):
        remembered = given  # a link, or Back: the whole view, so that nothing of another one is mixed in
        if "weight" in given:
            st.session_state.pop(_UNASKED, None)
        st.session_state["view-visit"] = view_visit() + 1
    if "base" not in remembered:
        remembered = FIRST_PAIR | remembered
    if remembered["base"].startswith("demo:") and "weight" not in remembered:
        remembered = remembered | {"weight": _DEMO_WEIGHT}
        st.session_state[_UNASKED] = _DEMO_WEIGHT
    view = View(**remembered)
    _store(view)
    return view


def view_visit() -> int:
    """Return how often the URL, not a control, has set the view in this session: a new visit starts from its tau."""
    return st.session_state.get("view-visit", 0)


def _is_echo(given: dict[str, str]) -> bool:
    """Return whether a URL is one that was just replaced: a browser sends the old one along until it has the new."""
    past = st.session_state.get("view-past", [])
    return any(given == url and time.monotonic() - replaced < _ECHO_SECONDS for url, replaced in past)


def change_view(**changes: Any) -> View:
    """Change what is in view, in the session and in the URL; a new pair or weight resets what depended on the old."""
    view = View(**st.session_state.get("view", {}))
    if {"base", "tuned"} & changes.keys():
        view = View(device=view.device)
        st.session_state.pop(_UNASKED, None)
    elif "weight" in changes and changes["weight"] != view.weight:
        view = replace(view, slice="", tau="")
    elif {"rule", "params", "slice"} & changes.keys():
        view = replace(view, tau="")
    view = replace(view, **{key: str(value) for key, value in changes.items()})
    _store(view)
    return view


def take_first(weight: str) -> None:
    """Look at a weight where nobody has chosen one."""
    st.session_state[_UNASKED] = weight
    change_view(weight=weight)


def address(**changes: str) -> dict[str, str]:
    """Return the query of a link to what is in view, but for some changes."""
    return _in_url(st.session_state.get("view", {}) | changes)


def close_pair() -> None:
    """Leave the app without a pair."""
    change_view(base=_CLOSED, tuned="")


def _in_url(values: dict[str, str]) -> dict[str, str]:
    """Return the part of a view that its URL names: whatever is not a default, nor a weight that nobody chose."""
    unasked = {"weight": st.session_state.get(_UNASKED)}
    return {k: v for k, v in values.items() if v and v not in (getattr(_DEFAULTS, k), unasked.get(k))}


def _store(view: View) -> None:
    """Write the view to the session and to the URL."""
    values = {key: getattr(view, key) for key in _KEYS}
    before, wanted = _in_url(st.session_state.get("view", {})), _in_url(values)
    if before and before != wanted:
        st.session_state["view-past"] = [*st.session_state.get("view-past", [])[-19:], (before, time.monotonic())]
    st.session_state["view"] = {key: value for key, value in values.items() if value}
    others = {key: value for key, value in st.query_params.to_dict().items() if key not in _KEYS}
    if st.query_params.to_dict() != others | wanted:
        st.query_params.from_dict(others | wanted)  # at once: every change of the URL is an entry of the history
