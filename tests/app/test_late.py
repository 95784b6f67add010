"""Reruns that come after their page was left: readdressed in the Streamlit at hand, left alone in another one."""

from dataclasses import dataclass
from threading import Lock

import pytest
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData, ScriptRequests

from dgviz.app.late import keeps_reruns_as_known, readdress, readdress_late_reruns


@dataclass
class Renamed:
    page_hash: str = "old"


class AnotherStreamlit:
    def __init__(self, waiting):
        self._lock, self._rerun_data = Lock(), waiting


def requests_for(**data):
    requests = ScriptRequests()
    assert requests.request_rerun(RerunData(page_script_hash="old", **data))
    return requests


def test_a_fragment_of_the_page_before_runs_under_the_page_at_hand():
    requests = requests_for(fragment_id="clicked")
    assert keeps_reruns_as_known(requests)
    readdress(requests, "new")
    data = requests.on_scriptrunner_ready().rerun_data
    assert (data.fragment_id_queue, data.page_script_hash) == (["clicked"], "new")


def test_a_rerun_of_a_whole_page_keeps_its_address():
    requests = requests_for()
    readdress(requests, "new")
    assert requests.on_scriptrunner_ready().rerun_data.page_script_hash == "old"


@pytest.mark.parametrize("requests", [None, object(), AnotherStreamlit(Renamed()), AnotherStreamlit({"a": 1})])
def test_requests_of_another_make_are_left_alone(requests):
    assert not keeps_reruns_as_known(requests)


def test_without_a_run_there_is_nothing_to_do():
    readdress_late_reruns()
