"""The pairs opened before: one entry for each, with its day and what was found, whatever the file holds."""

import orjson
import pytest

from dgviz.app.recents import Recent, recent_pairs
from dgviz.checkpoint import open_pair
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.app.pages import open_at, texts
from tests.checkpoints import write_pair

PAIR = Recent("a", "b")


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """The list, of one's own."""
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "recent.json"


def test_a_pair_is_held_once_with_its_day_and_verdict(tmp_path):
    base, tuned = write_pair(tmp_path / "pair", config={"model_type": "synthetic"})
    for weight in weights_of(open_pair(base, tuned)):
        OpenWeight(weight, "cpu", SpectrumStore()).spectrum()
    open_at("open", base=base, tuned=tuned)
    (first,) = recent_pairs()
    assert first.day.startswith("today ") and first.verdict.startswith("DG-Hard ")
    app = open_at("evidence", base=f"{base}/", tuned=tuned.parent / "base" / ".." / "tuned")
    assert [pair.base for pair in recent_pairs()] == [str(base)]  # it was not opened there
    app = open_at("open?show=model", base=f"{base}/", tuned=tuned.parent / "base" / ".." / "tuned")
    (again,) = recent_pairs()
    assert again.base == f"{base}/" and again.verdict == first.verdict
    assert f"today {again.day[6:8]}" in texts(app) and first.verdict in texts(app)
    app.button(key="close-pair").click().run()
    app.button(key="recent-0").click().run()
    assert not app.exception and app.session_state["view"]["base"] == f"{base}/"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", []),
        ("{", []),
        ("null", []),
        ('{"base": "a"}', []),
        ('[["a", "b"]]', [PAIR]),
        ('[["a"], 3, {"base": "a"}, {"base": 1, "tuned": "b"}, {"base": "a", "tuned": "b", "later": "x"}]', [PAIR]),
        ('[{"base": "a", "tuned": "b", "opened": "soon"}]', [Recent("a", "b", "soon")]),
    ],
)
def test_an_older_and_a_spoiled_file(file, content, found):
    file.write_text(content)
    assert recent_pairs() == found and not any(pair.day for pair in found)


def test_a_pair_opened_over_a_spoiled_file_begins_a_new_one(file, tmp_path):
    file.write_text("{")
    base, tuned = write_pair(tmp_path / "pair")
    open_at("open", base=base, tuned=tuned)
    (entry,) = orjson.loads(file.read_bytes())
    assert (entry["base"], entry["tuned"]) == (str(base), str(tuned)) and entry["opened"]


def test_days_are_said_as_people_do():
    assert Recent("a", "b", "2001-02-03T12:00:00+00:00").day == "3 February"
