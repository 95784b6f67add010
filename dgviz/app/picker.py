"""Choosing two checkpoints: fields that complete folders, files and hub names while one types."""

import os
from pathlib import Path

import streamlit as st

from dgviz.app.messages import plain, show_error, show_warning
from dgviz.app.pair import DEMO, checkpoint_label, checkpoint_path, load_pair
from dgviz.app.recents import note_opened, recent_pairs, recents_problem
from dgviz.app.roots import confine, typed_path
from dgviz.app.state import View, change_view
from dgviz.checkpoint.hub import cache_folder, split_hub_id
from dgviz.errors import AccessError, DgvizError, printable

OPENED = "opened-here"
"""The pair that the user has opened in this session, not a link; kept until the page has acted on it."""

_ASKED = "asked-to-open"
_SIDES = {"base": ("Base checkpoint", "before"), "tuned": ("Tuned checkpoint", "after")}
_OFFERED = 5
_LOOKED_AT = 5000  # entries of a folder


def choose_pair(view: View) -> None:
    """Let the user name base and tuned; opens them when asked to, and leaves the open pair alone where that fails."""
    shown = (view.base, view.tuned) if view.has_pair else ("", "")
    typed = [_choose(side, value) for side, value in zip(_SIDES, shown, strict=True)]
    st.button(
        "Open pair",
        icon=":material/folder_open:",
        type="primary" if not view.has_pair else "secondary",
        on_click=st.session_state.__setitem__,
        args=(_ASKED, True),
    )
    if st.session_state.pop(_ASKED, False):
        if not all(typed):
            st.warning("Both are needed: the model before fine-tuning and the model after.")
        elif _opens(*typed):
            open_here(*typed)
            st.rerun()


def open_here(base: str, tuned: str) -> None:
    """Open a pair, which the user has asked for."""
    note_opened(base, tuned)
    change_view(base=base, tuned=tuned)
    st.session_state[OPENED] = base, tuned


def demo_buttons() -> None:
    """Offer the two built-in fine-tunes."""
    for name, title in (("noisy", "Open the noisy demo"), ("clean", "Open the clean demo")):
        st.button(
            title,
            key=f"open-{name}",
            icon=":material/play_arrow:",
            on_click=open_here,
            args=(f"{DEMO}base", f"{DEMO}{name}"),
        )


def _choose(side: str, shown: str) -> str:
    """Show the field of one side and, while it is typed into, what would complete it; return what it says."""
    title, when = _SIDES[side]
    key, drawn = f"picked-{side}", f"picked-{side}-from"
    if st.session_state.get(drawn) != shown or key not in st.session_state:  # another pair was opened elsewhere
        st.session_state[drawn] = st.session_state[key] = shown
    st.text_input(title, key=key, placeholder=f"folder or org/name, {when} fine-tuning", live=True)
    typed = st.session_state[key].strip().strip("'\"")
    if typed and typed != shown:
        with st.container(horizontal=True, gap="small"):
            for found in completions(typed):
                st.button(
                    plain(found.rstrip("/").rpartition("/")[2] if Path(found).is_absolute() else found),
                    key=f"complete-{side}-{found}",
                    icon=":material/subdirectory_arrow_right:",
                    type="tertiary",
                    help=plain(found),
                    on_click=st.session_state.__setitem__,
                    args=(key, found),
                )
    return typed


def completions(typed: str) -> list[str]:
    """Return what a name could go on as: folders and weight files that begin so, or models of the hub's cache.

    A folder that holds a checkpoint comes before others; whatever is outside what the server may open is not told.
    """
    if typed.startswith(("/", "~", ".")):
        return _paths(typed)
    seen = [side for pair in recent_pairs() for side in (pair.base, pair.tuned)]
    names = [name for name in dict.fromkeys([*seen, *_cached()]) if typed.lower() in name.lower() and name != typed]
    return names[:_OFFERED]


def _paths(typed: str) -> list[str]:
    """Return folders and weight files whose path begins with what was typed."""
    try:
        path = typed_path(typed)
        folder, begun = (path, "") if typed.endswith("/") else (path.parent, path.name)
        confine(folder)
        with os.scandir(folder) as entries:
            seen = [entry for entry, _ in zip(entries, range(_LOOKED_AT), strict=False) if not _leads_out(entry)]
    except (AccessError, OSError):
        return []
    hidden = begun.startswith(".")
    fits = [entry for entry in seen if entry.name.startswith(begun) and (hidden or not entry.name.startswith("."))]
    folders = [entry for entry in fits if _is_folder(entry)]
    files = [entry for entry in fits if entry.name.endswith(".safetensors") and entry not in folders]
    ordered = sorted(folders, key=lambda entry: (not _is_checkpoint(Path(entry.path)), entry.name))
    found = [*(f"{entry.path}/" for entry in ordered), *sorted(entry.path for entry in files)]
    # A name that is no text cannot be shown to a browser, nor come back from it.
    return [name for name in found if name.rstrip("/") != str(path) and name == printable(name)][:_OFFERED]


def _leads_out(entry: os.DirEntry) -> bool:
    """Return whether an entry is a link to what this server may not open."""
    try:
        return entry.is_symlink() and confine(Path(entry.path)) is None
    except (AccessError, OSError):
        return True


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder looks like a checkpoint."""
    return any((folder / name).exists() for name in ("config.json", "adapter_config.json", "model.safetensors"))


def _cached() -> list[str]:
    """Return the models in the hub's cache, which are opened without fetching anything."""
    try:
        confine(cache_folder())
        folders = sorted(cache_folder().glob("models--*--*"))
    except (AccessError, OSError):
        return []
    return [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders]


def _opens(base: str, tuned: str) -> bool:
    """Say whether a pair can be opened; why not is shown, and the pair that is open stays."""
    try:
        if any(split_hub_id(side) is not None and not checkpoint_path(side).exists() for side in (base, tuned)):
            return True  # not fetched yet: the page says how much there is to fetch
        load_pair(View(base=base, tuned=tuned))
    except (DgvizError, OSError) as error:
        show_error(error)
        return False
    return True


def draw_recents() -> None:
    """List the pairs opened before, with the day and what was found."""
    pairs, problem = recent_pairs(), recents_problem()
    if pairs or problem:
        st.markdown("**Opened before**")
    if problem:
        show_warning(problem)
    for number, pair in enumerate(pairs):
        with st.container(gap=None):
            st.button(
                plain(f"{checkpoint_label(pair.base)} → {checkpoint_label(pair.tuned)}"),
                key=f"recent-{number}",
                help=plain(f"{pair.base} → {pair.tuned}"),
                type="tertiary",
                on_click=open_here,
                args=(pair.base, pair.tuned),
            )
            st.caption(plain(" · ".join(filter(None, (pair.day, pair.verdict)))))
