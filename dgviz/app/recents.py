"""The pairs that were opened here before: which a link may open, newest first, when, and what was found."""

import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import streamlit as st

from dgviz.app.pair import DEMO, checkpoint_path, state_dir
from dgviz.app.state import View
from dgviz.errors import DgvizError, StateError
from dgviz.files import read_json, write_json

_KEPT = 8
_FIELDS = "base", "tuned", "opened", "verdict"
_OPENED: set[tuple[str, str]] = set()
_TYPED: set[tuple[str, str]] = set()  # where the server was started, until their page is drawn
"""Pairs that somebody has opened on this server since it was started."""


@dataclass(frozen=True)
class Recent:
    """A pair that was opened.

    Attributes
    ----------
    base, tuned : str
        As they were typed.
    opened : str
        When it was opened last, ISO 8601, UTC; empty where nobody noted it.
    verdict : str
        That of DG-Hard on the whole model, one of `dgviz.rmt.diagnosis.VERDICTS`; empty before a scan.
    """

    base: str
    tuned: str
    opened: str = ""
    verdict: str = ""

    @property
    def day(self) -> str:
        """When it was opened, as people say it."""
        try:
            then = datetime.fromisoformat(self.opened).astimezone()
        except ValueError:
            return ""
        days = (datetime.now().astimezone().date() - then.date()).days
        return {0: f"today {then:%H:%M}", 1: "yesterday"}.get(days, f"{then.day} {then:%B}")

    def is_same(self, other: "Recent") -> bool:
        """Return whether two entries are one pair, however its paths were written."""
        return self._resolved() == other._resolved()

    @property
    def is_allowed(self) -> bool:
        """Whether this server may open it."""
        return self._real() is not None

    def _resolved(self) -> tuple[str, str]:
        return self._real() or (self.base, self.tuned)

    def _real(self) -> tuple[str, str] | None:
        """Return where the two sides lie; None where this server may not open them, or no path is written so."""
        try:
            base, tuned = (os.path.realpath(checkpoint_path(side)) for side in (self.base, self.tuned))
        except (DgvizError, OSError, ValueError):
            return None
        return base, tuned


def recent_pairs() -> list[Recent]:
    """Return the pairs opened last that may be opened here, newest first; `recents_problem` says what is lacking."""
    return [pair for pair in _read()[0] if pair.is_allowed]


def recents_problem() -> str:
    """Return why the file of recent pairs, or some of it, cannot be read, in a sentence; empty where it can."""
    return _read()[1]


def remember_pair(view: View, verdict: str = "") -> None:
    """Put the pair in view first among the recent ones; the demo is always at hand and not kept."""
    if view.base.startswith(DEMO):
        return
    pairs = _read()[0]
    new = Recent(view.base, view.tuned, verdict=verdict)
    known = next((pair for pair in pairs if pair.is_same(new)), new)
    noted = st.session_state.get("noted-pair") == (view.base, view.tuned)  # once for each opening
    if noted and known.verdict == (verdict or known.verdict) and known in pairs[:1]:
        return
    st.session_state["noted-pair"] = view.base, view.tuned
    opened = known.opened if noted and known.opened else datetime.now(UTC).isoformat(timespec="seconds")
    new = replace(new, opened=opened, verdict=verdict or known.verdict)
    kept = [new, *(pair for pair in pairs if not pair.is_same(new))][:_KEPT]
    state_dir().mkdir(parents=True, exist_ok=True)
    write_json(state_dir() / "recent.json", [asdict(pair) for pair in kept])


def note_opened(base: str, tuned: str) -> None:
    """Note that somebody at this server wants a pair opened, so that its files may be read."""
    _OPENED.add((base, tuned))


def note_typed(base: str, tuned: str) -> None:
    """Note that the server was started on a pair: it is opened as by a click."""
    note_opened(base, tuned)
    _TYPED.add((base, tuned))


def take_typed(view: View) -> bool:
    """Return, once, whether the server was started on the pair in view."""
    typed = (view.base, view.tuned) in _TYPED
    _TYPED.discard((view.base, view.tuned))
    return typed


def was_opened(view: View) -> bool:
    """Return whether the pair in view was opened here before, or is the demo: a link alone opens nothing."""
    if view.base.startswith(DEMO) and view.tuned.startswith(DEMO):
        return True
    wanted = Recent(view.base, view.tuned)
    return (view.base, view.tuned) in _OPENED or any(pair.is_same(wanted) for pair in recent_pairs())


def _read() -> tuple[list[Recent], str]:
    """Return the entries of the file that are entries, and what is wrong with the rest."""
    file, pairs = state_dir() / "recent.json", []
    try:
        entries = read_json(file) if file.exists() else []
    except StateError as error:
        return [], f"{error}; the next pair that is opened begins a new list"
    if not isinstance(entries, list):
        return [], f"{file} holds no list of pairs; the next pair that is opened begins a new one"
    for entry in entries:
        if isinstance(entry, list) and len(entry) == 2:  # as the file held them before it held more of each
            entry = dict(zip(("base", "tuned"), entry, strict=True))
        known = {key: entry[key] for key in _FIELDS if key in entry} if isinstance(entry, dict) else {}
        if known.keys() >= {"base", "tuned"} and all(isinstance(value, str) for value in known.values()):
            pairs.append(Recent(**known))
    lost = len(entries) - len(pairs)
    return pairs, f"{lost} of the {len(entries)} entries of {file} name no pair and are left out" if lost else ""
