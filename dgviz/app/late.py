"""Reruns of a fragment that were asked for on a page that has been left."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from streamlit.runtime.scriptrunner import get_script_run_ctx


def readdress_late_reruns() -> None:
    """Address a waiting rerun of fragments to the page that has just run.

    A click or a timer of the page before may ask for its fragment while ``st.switch_page`` is under way. Streamlit
    1.67 runs that request after the new page, under the old page's name, for which the browser empties the page.
    """
    context = get_script_run_ctx()
    if context is not None and keeps_reruns_as_known(getattr(context, "script_requests", None)):
        readdress(context.script_requests, context.page_script_hash)


def keeps_reruns_as_known(requests: Any) -> bool:
    """Say whether a run's requests hold what waits where Streamlit 1.67 does; there is no public name for it."""
    waiting = getattr(requests, "_rerun_data", None)
    names = {field.name for field in fields(waiting)} if is_dataclass(waiting) else set()
    return hasattr(requests, "_lock") and {"fragment_id_queue", "page_script_hash"} <= names


def readdress(requests: Any, page: str) -> None:
    """Address what waits to a page, by its hash, if it is a rerun of fragments."""
    with requests._lock:
        waiting = requests._rerun_data
        if waiting.fragment_id_queue and waiting.page_script_hash != page:
            requests._rerun_data = replace(waiting, page_script_hash=page)
