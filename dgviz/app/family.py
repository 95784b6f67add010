"""The family in view: further tuned checkpoints beside the pair, kept in the URL, and the job that compares them."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import streamlit as st

from dgviz.analysis.family import distinct_names, match_members
from dgviz.app.fetches import require_fetched
from dgviz.app.jobs import Task, root
from dgviz.app.messages import plain, show_error
from dgviz.app.pair import DEMO, checkpoint_label, checkpoint_path, contents_of, load_pair
from dgviz.app.recents import note_opened, recent_pairs, was_opened
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.command import Command
from dgviz.errors import DgvizError, PairError
from dgviz.rmt.threshold import Rule
from dgviz.spectra.store import ENGINE_VERSION
from dgviz.spectra.weight import Weight

_TYPED = "family-typed"


@dataclass(frozen=True)
class Member:
    """One tuned checkpoint of a family.

    Attributes
    ----------
    name : str
        What the page calls it.
    path : Path
        Where it is.
    pair : CheckpointPair
        With the base.
    """

    name: str
    path: Path
    pair: CheckpointPair


def split_others(text: str) -> list[str]:
    """Return the checkpoints that a link names beside its pair."""
    return [name.replace("%7C", "|").replace("%25", "%") for name in text.split("|") if name]


def join_others(names: list[str]) -> str:
    """Return checkpoints as a link holds them; see `split_others`."""
    return "|".join(name.replace("%", "%25").replace("|", "%7C") for name in names)


def named_others(view: View) -> dict[str, str]:
    """Return the further fine-tunes of the view by what a page calls them."""
    others = split_others(view.others)
    titles = distinct_names([checkpoint_label(name).replace(",", " ").replace(": ", " ") for name in others])
    return dict(zip(titles, others, strict=True))


def counterpart(view: View, pair: CheckpointPair, weight: Weight, name: str) -> tuple[CheckpointPair, Weight]:
    """Return another fine-tune with the base, and its side of a weight.

    Raises
    ------
    DgvizError, OSError
        If nobody has opened it here, it cannot be read, or has no such weight.
    """
    if not was_opened(replace(view, tuned=name)):
        raise PairError("a link names it, and nothing of it has been read; open it among the fine-tunes")
    other = load_pair(replace(view, tuned=name))
    shared, apart = match_members([pair, other])
    base = weight.tensor.base.name, weight.index
    sides = [one.sides[1] for one in shared if (one.sides[0].tensor.base.name, one.sides[0].index) == base]
    if not sides:
        raise PairError(next((one.reason for one in apart if one.weight == weight.name), "it has no such weight"))
    return other, sides[0]


def choose_members(view: View, pair: CheckpointPair) -> list[Member]:
    """Let the user choose further tuned checkpoints, and return all that can be opened, the pair's own first."""
    others = split_others(view.others)
    opened = {view.tuned: pair}
    with st.container(border=True):
        st.markdown(f"**Fine-tunes of {plain(checkpoint_label(view.base))}**")
        st.text(checkpoint_label(view.tuned))
        for number, name in enumerate(others):
            rest = others[:number] + others[number + 1 :]
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(checkpoint_label(name), help=plain(name))
                st.button(
                    "Remove",
                    key=f"family-remove-{number}",
                    icon=":material/close:",
                    type="tertiary",
                    on_click=change_view,
                    kwargs={"others": join_others(rest)},
                )
            if not was_opened(replace(view, tuned=name)):
                st.button("Open it", key=f"family-open-{number}", on_click=note_opened, args=(view.base, name))
                st.caption("A link names it; nothing of it has been read.")
                continue
            require_fetched(replace(view, tuned=name))
            try:
                opened[name] = _opened(replace(view, tuned=name))
            except (DgvizError, OSError) as error:
                show_error(error)
        _offer_more(view, others)
    called = distinct_names([checkpoint_label(name).replace(",", " ") for name in opened])
    return [
        Member(title, checkpoint_path(name), own) for title, (name, own) in zip(called, opened.items(), strict=True)
    ]


def _opened(view: View) -> CheckpointPair:
    """Return a pair that has something to compare."""
    pair = load_pair(view)
    if not pair.repairable:
        pair.refuse_blocked()
    return pair


def _offer_more(view: View, others: list[str]) -> None:
    """Offer to add a checkpoint: by its path, or one seen with this base before."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Add a fine-tune of the same base",
            key=_TYPED,
            placeholder="folder or org/name",
            width=420,
            on_change=_add_typed,
            args=(view,),
        )
        demo = ["demo:noisy", "demo:clean"] if view.base.startswith(DEMO) else []
        known = dict.fromkeys([*demo, *(recent.tuned for recent in recent_pairs() if recent.base == view.base)])
        for name in known:
            if name not in (view.tuned, *others):
                st.button(
                    plain(f"Add {checkpoint_label(name)}"),
                    key=f"family-add-{name}",
                    icon=":material/add:",
                    help=plain(name),
                    on_click=_add,
                    args=(view, name),
                )


def _add_typed(view: View) -> None:
    """Add the checkpoint that was typed."""
    name = st.session_state[_TYPED].strip().strip("'\"")
    st.session_state[_TYPED] = ""
    if name:
        _add(view, name)


def _add(view: View, name: str) -> None:
    """Add a checkpoint to the family, once."""
    others = split_others(view.others)
    if name not in (view.tuned, *others):
        note_opened(view.base, name)
        change_view(others=join_others([*others, name]))


def family_task(view: View, members: list[Member], rule: Rule, params: dict) -> Task:
    """Return the job that scans what is missing and compares the family under a rule; it writes a file of its own."""
    sides = [contents_of(members[0].pair.base), *(contents_of(member.pair.tuned) for member in members)]
    identity = orjson.dumps([ENGINE_VERSION, *sides, rule.name, sorted(params.items())])
    save = root("family").resolve() / ".results" / f"{hashlib.sha256(identity).hexdigest()}.json"
    command = Command(
        "family",
        base=checkpoint_path(view.base),
        tuned=[member.path for member in members],
        names=",".join(member.name for member in members),
        rule=rule.name,
        rule_param=rule.changed(params),
        device=view.device,
        save=save,
    )
    return Task(
        command,
        f"{checkpoint_label(view.base)} → {len(members)} fine-tunes",
        save,
        "Kept directions, compared two by two.",
        "Spectra that are not stored yet are computed first; nothing is written to the checkpoints.",
        "Compare",
        again="Compare again",
        made=save.is_file(),
    )
