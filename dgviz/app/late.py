"""Reruns of a fragment that were asked for on a page that has been left."""

from dataclasses import replace

from streamlit.runtime.scriptrunner import get_script_run_ctx


def readdress_late_reruns() -> None:
    """Address a waiting rerun of fragments to the page that has just run.

    A click or a timer of the page before may ask for its fragment while ``st.switch_page`` is under way. Streamlit
    1.67 runs that request after the new page, under the old page's name, for which the browser empties the page. What
    waits is only to be had from the run's own requests; there is no public name for it.
    """
    context = get_script_run_ctx()
    requests = context.script_requests if context else None
    if requests is None:
        return
    with requests._lock:
        waiting = requests._rerun_data
        if waiting.fragment_id_queue and waiting.page_script_hash != context.page_script_hash:
            requests._rerun_data = replace(waiting, page_script_hash=context.page_script_hash)
