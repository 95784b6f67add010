"""Choosing two checkpoints: what completes a name that is typed, and what is not told."""

import pytest

from dgviz.app.picker import completions
from dgviz.app.recents import Recent
from dgviz.files import write_json
from tests.app.pages import open_at, texts
from tests.checkpoint.test_hub import cached_snapshot
from tests.checkpoints import write_pair


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A list of pairs and a hub's cache of one's own."""
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "state").mkdir()


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    for name in ("alpha", "alpine", ".alps", "beta"):
        (folder / name).mkdir(parents=True)
    (folder / "alpine" / "config.json").write_text("{}")
    for name in ("al.safetensors", "al.txt"):
        (folder / name).write_text("")
    return folder


def test_folders_and_weight_files_that_begin_so(models):
    begun = [f"{models}/alpine/", f"{models}/alpha/", f"{models}/al.safetensors"]  # a checkpoint first
    assert completions(f"{models}/al") == begun
    assert set(completions(f"{models}/")) == {*begun, f"{models}/beta/"}
    assert completions(f"{models}/.a") == [f"{models}/.alps/"]
    assert (
        completions(f"{models}/beta") == completions(f"{models}/none/") == completions("~nobody-of-this-name/") == []
    )


def test_models_of_the_hubs_cache_and_names_opened_before(tmp_path):
    base, _ = write_pair(tmp_path / "source")
    cached_snapshot(tmp_path / "hub", base)
    write_json(tmp_path / "state" / "recent.json", [{"base": "other/named", "tuned": str(base)}])
    assert completions("NAM") == ["other/named", "org/name"]
    assert completions("org/name") == []


def test_nothing_outside_the_folders_of_the_server_is_told(tmp_path, models, monkeypatch):
    base, _ = write_pair(tmp_path / "source")
    cached_snapshot(tmp_path / "hub", base)
    write_json(tmp_path / "state" / "recent.json", [{"base": str(base), "tuned": str(base)}])
    (models / "beta" / "inside").mkdir()
    (models / "beta" / "out").symlink_to(models)
    monkeypatch.setenv("DGVIZ_ROOTS", str(models / "beta"))
    assert completions(f"{models}/beta/in") == [f"{models}/beta/inside/"]
    for typed in (f"{models}/al", f"{models}/beta/../al", f"{models}/beta/out/al", "name", "source"):
        assert completions(typed) == []
    app = open_at("open", base="none")
    assert "Opened before" not in texts(app)
    app.text_input(key="picked-base").set_value("org/name").run()
    app.text_input(key="picked-tuned").set_value("org/name").run()
    next(button for button in app.button if button.label == "Open pair").click().run()
    assert not app.exception and "hub is not opened: it lies outside the folders" in texts(app)


def test_a_completion_is_taken_and_goes_on(models):
    app = open_at("open", base="none")
    app.text_input(key="picked-base").set_value(f"{models}/al").run()
    app.button(key=f"complete-base-{models}/alpine/").click().run()
    assert not app.exception and app.text_input(key="picked-base").value == f"{models}/alpine/"
    assert not [button for button in app.button if str(button.key).startswith("complete-")]  # an empty folder


def test_pairs_are_told_by_their_places():
    assert Recent("~nobody-of-this-name/x", "\0").is_same(Recent("~nobody-of-this-name/x", "\0"))
