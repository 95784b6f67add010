"""Fine-tunes of one base: choosing them, what is drawn from the store, and the comparison that a job makes."""

import time

import orjson
import pytest

from dgviz.app.family import join_others, split_others
from dgviz.app.family_overlap import shown_share
from dgviz.app.jobs import root
from dgviz.checkpoint import open_pair
from dgviz.figures import noise_by_model, overlap_curves, overlap_map
from dgviz.jobs import list_jobs
from tests.app.pages import open_at, texts
from tests.checkpoints import planted_update, random_tensors, write_checkpoint
from tests.scans import scan_here


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A base and two fine-tunes of it, of which the second lacks a tensor."""
    root = tmp_path_factory.mktemp("family")
    base = random_tensors()
    second = planted_update(base, seed=2)
    del second["model.pos"]
    config = {"model_type": "synthetic"}
    return [
        write_checkpoint(root / name, tensors, config)
        for name, tensors in (("base", base), ("first", planted_update(base)), ("second", second))
    ]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Jobs and spectra of one's own."""
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    yield
    for job in list_jobs(root("family")):
        if job.state == "running":
            job.cancel(force=True)


def open_page(paths=None, **query):
    pair = {"base": "none"} if paths is None else {"base": paths[0], "tuned": paths[1]}
    return open_at("workbench?show=family", **pair, **query)


def scan(paths):
    for tuned in paths[1:]:
        scan_here(open_pair(paths[0], tuned))


def test_without_a_pair_it_says_what_to_do():
    assert "No pair is open" in texts(open_page())


def test_the_demos_other_fine_tune_is_one_click_away():
    app = open_page(["demo:base", "demo:noisy"])
    assert "Add at least one more fine-tune" in texts(app)
    app.button(key="family-add-demo:clean").click().run()
    assert not app.exception and app.query_params["others"] in ("demo:clean", ["demo:clean"])
    assert "26 of 26 weights have no stored spectrum" in texts(app)
    assert "family" in app.code[0].value and "noisy (demo),clean (demo)" in app.code[0].value
    app.button(key="family-remove-0").click().run()
    assert not app.exception and "others" not in app.query_params


def test_a_checkpoint_that_cannot_be_opened_is_said_and_the_others_stay(family, tmp_path):
    gone = tmp_path / "gone"
    app = open_page(family, others=join_others([str(gone), str(family[2])]))
    assert str(gone) in texts(app) and "This did not work" in texts(app)
    assert len([button for button in app.button if button.key.startswith("family-remove")]) == 2
    assert "Compare" in [button.label for button in app.button]


@pytest.mark.slow
def test_what_is_stored_is_drawn_side_by_side(family):
    scan(family)
    app = open_page(family)
    app.text_input(key="family-typed").set_value(str(family[2])).run()
    assert not app.exception
    table = app.dataframe[0].value
    assert [name.rpartition("/")[2] for name in table["model"]] == ["first", "second"]
    assert list(table["weights"]) == [9, 8]
    assert (table["kept rank"] > 0).all() and (table["exact-zero share"] < 1).all()
    noise = app.dataframe[1].value.set_index("group")
    assert (noise.loc["all weights"] > 0).all()
    app.pills(key="family-group").set_value("MLP").run()
    app.selectbox(key="family-figure").set_value("mp_fit").run()
    app.segmented_control(key="family-noise").set_value("norm_share").run()
    assert not app.exception
    assert list(app.dataframe[0].value["weights"]) == [2, 2]
    assert (app.dataframe[1].value.set_index("group").loc["all weights"] == 100).all()
    assert "overlaps and cosines appear here" in texts(app)


@pytest.mark.slow
def test_a_comparison_is_made_by_a_command_and_read_back(family):
    scan(family)
    app = open_page(family, others=family[2])
    app.button(key="start-family").click().run()
    assert not app.exception
    (job,) = list_jobs(root("family"))
    deadline = time.monotonic() + 300
    while job.state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert job.state == "done", job.log_tail()
    (saved,) = (root("family") / ".results").glob("*.json")
    result = orjson.loads(saved.read_bytes())
    app = open_page(family, others=family[2])
    assert "Kept directions in common" in texts(app)
    pairs = app.dataframe[2].value
    whole = result["overlap"][0]["all"]
    assert len(pairs) == 1 and whole["weights"] == 8 and pairs["weights"][0] == whole["compared"]
    assert pairs["left"][0] == pytest.approx(100 * whole["left"]["value"])
    assert list(app.dataframe[3].value["weight"]) == [row["name"] for row in result["weights"]]
    left_out = app.dataframe[4].value
    assert list(left_out["weight"]) == ["model.pos"] and "Only in base" in left_out["reason"][0]
    app.toggle(key="family-beyond").set_value(True).run()
    app.segmented_control(key="family-side").set_value("right").run()
    assert not app.exception
    assert app.button(key="start-family").label == "Compare again"


def test_links_hold_any_path():
    paths = ["demo:clean", "/a|b/50%/c", "org/name", "%7C"]
    assert split_others(join_others(paths)) == paths and split_others("") == []


def test_a_share_beyond_chance():
    assert shown_share({"value": 0.6, "chance": 0.2}, beyond=False) == 0.6
    assert shown_share({"value": 0.6, "chance": 0.2}, beyond=True) == pytest.approx(0.5)
    assert shown_share({"value": 1.0, "chance": 1.0}, beyond=True) != shown_share(None, beyond=False)  # both nan


def test_the_map_has_left_below_and_right_above_the_diagonal():
    nan = float("nan")
    figure = overlap_map(["a", "b"], [[nan, nan], [0.25, nan]], [[nan, 0.5], [nan, nan]], [["", "up"], ["down", ""]])
    assert figure.data[0].z[1][0] == 0.25 and figure.data[0].z[0][1] == 0.5
    assert figure.data[0].text[1][0] == "25.0 %" and figure.data[0].text[0][0] == ""


def test_curves_have_chance_dotted_and_bars_a_colour_per_model():
    figure = overlap_curves(["0", "1"], {"a and b": [(0.5, 0.1), None]})
    assert [trace.line.dash for trace in figure.data] == ["solid", "dot"]
    assert figure.data[0].y == (50, None) and figure.data[1].y == (10, None)
    assert len(overlap_curves(["0", "1"], {"a and b": [(0.5, 0.1), None]}, chance=False).data) == 1
    figure = noise_by_model({"a": {"MLP": 0.5}, "b": {"MLP": 0.25, "head": 1.0}}, "mean noise")
    assert figure.data[0].x == (50, None) and figure.data[1].x == (25, 100)
