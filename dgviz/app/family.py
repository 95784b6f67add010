"""The family in view: further tuned checkpoints beside the pair, kept in the URL, and the job that compares them."""

import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import streamlit as st

from dgviz.analysis.family import distinct_names
from dgviz.app.exports import shown_command
from dgviz.app.fetches import require_fetched
from dgviz.app.messages import show_error
from dgviz.app.pair import DEMO, checkpoint_label, checkpoint_path, load_pair, recent_pairs, state_dir
from dgviz.app.state import View, change_view
from dgviz.checkpoint import CheckpointPair
from dgviz.errors import DgvizError
from dgviz.jobs import Job, JobError, list_jobs, start_job
from dgviz.rmt.threshold import Rule
from dgviz.spectra.store import ENGINE_VERSION

_SEEN = "family-seen"
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


def choose_members(view: View, pair: CheckpointPair) -> list[Member]:
    """Let the user choose further tuned checkpoints, and return all that can be opened, the pair's own first."""
    others = split_others(view.others)
    opened = {view.tuned: pair}
    with st.container(border=True):
        st.markdown(f"**Fine-tunes of {checkpoint_label(view.base)}**")
        st.text(checkpoint_label(view.tuned))
        for number, name in enumerate(others):
            rest = others[:number] + others[number + 1 :]
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(checkpoint_label(name), help=name)
                st.button(
                    "Remove",
                    key=f"family-remove-{number}",
                    icon=":material/close:",
                    type="tertiary",
                    on_click=change_view,
                    kwargs={"others": join_others(rest)},
                )
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
        known = dict.fromkeys([*demo, *(tuned for base, tuned in recent_pairs() if base == view.base)])
        for name in known:
            if name not in (view.tuned, *others):
                st.button(
                    f"Add {checkpoint_label(name)}",
                    key=f"family-add-{name}",
                    icon=":material/add:",
                    help=name,
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
        change_view(others=join_others([*others, name]))


def families_root() -> Path:
    """Return the directory that holds a directory per comparison of a family."""
    return state_dir() / "families"


def result_file(members: list[Member], rule: Rule, params: dict) -> Path:
    """Return where the comparison of a family under a rule is kept."""
    sides = [members[0].pair.base.fingerprint, *(member.pair.tuned.fingerprint for member in members)]
    identity = orjson.dumps([ENGINE_VERSION, *sides, rule.name, sorted(params.items())])
    return families_root().resolve() / ".results" / f"{hashlib.sha256(identity).hexdigest()}.json"


def family_command(
    base: Path, members: list[Member], rule: Rule, params: dict, save: Path, device: str = "auto"
) -> list[str]:
    """Return the command that scans what is missing and compares the family."""
    command = ["python", "-m", "dgviz", "family", str(base), *(str(member.path) for member in members)]
    command += ["--names", ",".join(member.name for member in members), "--rule", rule.name]
    for name, value in rule.changed(params).items():
        command += ["--rule-param", f"{name}={value:.12g}"]
    command += ["--save", str(save)]
    return command if device == "auto" else [*command, "--device", device]


def find_comparison(save: Path) -> Job | None:
    """Return the last comparison that writes a result, or None."""
    return next((job for job in list_jobs(families_root()) if job.lock == save), None)


@st.fragment(run_every=1.0)
def draw_job(command: list[str], save: Path, title: str) -> None:
    """Show a button to compare, how far that is, or what went wrong."""
    job = find_comparison(save)
    state = None if job is None else job.state
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(
                "**Kept directions, compared two by two.**  Spectra that are not stored yet are computed first; "
                "nothing is written to the checkpoints."
            )
            if state == "running":
                st.button("Cancel", key="cancel-family", icon=":material/cancel:", on_click=job.cancel)
            else:
                st.button(
                    "Compare again" if save.is_file() else "Compare",
                    key="start-family",
                    icon=":material/play_arrow:",
                    type="tertiary" if save.is_file() else "primary",
                    on_click=_start,
                    args=(command, save, title),
                )
        if state == "running":
            progress = job.progress()
            st.progress(progress.fraction if progress else 0.0, text=progress.message if progress else "starting ...")
        elif state in ("failed", "died"):
            _draw_failure(job)
        elif state == "cancelled":
            st.text("Cancelled; the spectra computed so far are kept.")
        with st.expander("The same on the command line"):
            st.code(shown_command(command), language="bash", wrap_lines=True)
    seen = st.session_state.get(_SEEN)
    st.session_state[_SEEN] = (str(save), state)
    if seen is not None and seen[0] == str(save) and seen[1] != state:
        st.rerun()  # it has begun or ended: the page around it shows something else now


def _draw_failure(job: Job) -> None:
    """Say what went wrong, weight by weight where it is known."""
    st.text(job.error or "It ended without a word.")
    errors = (job.result or {}).get("errors", {})
    if errors:
        rows = [{"weight": name, "error": error} for name, error in errors.items()]
        st.dataframe(rows, hide_index=True, width="stretch", height=min(38 + 35 * len(rows), 300))
    with st.expander("Log"):
        st.code(job.log_tail(), language=None)


def _start(command: list[str], save: Path, title: str) -> None:
    """Start the comparison, or say why not."""
    root = Path(__file__).parents[2]
    try:
        start_job([sys.executable, *command[1:]], families_root(), title, lock=save, cwd=root)
    except (JobError, OSError) as error:
        show_error(error)
