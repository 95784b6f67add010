"""Paths in the app of a server that others can reach: inside the named folders, or refused in a sentence."""

from pathlib import Path

import pytest

from dgviz.app import roots
from dgviz.app import worker as work
from dgviz.app.jobs import find_job, known_jobs, root, start
from dgviz.app.pair import checkpoint_path
from dgviz.app.picker import completions
from dgviz.command import Command
from dgviz.errors import AccessError
from dgviz.jobs import list_jobs, start_job
from tests.app.pages import open_at, texts
from tests.checkpoint.test_hub import cached_snapshot
from tests.checkpoints import write_pair


@pytest.fixture(autouse=True)
def worker():
    """The worker that later tests share is started without the folders that these tests name."""
    return work.worker()


@pytest.fixture
def listen(monkeypatch):
    """Return a function that sets the address a server listens at, and its folders."""

    def listen(address, *folders):
        monkeypatch.setattr(roots.st, "get_option", lambda name: {"server.address": address}[name])
        monkeypatch.setenv(roots.ROOTS, ":".join(map(str, folders)))

    return listen


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.0.0.7"])
def test_a_server_for_this_machine_opens_everything(listen, address):
    listen(address)
    assert roots.allowed_roots() is None
    assert checkpoint_path("/etc") == roots.confine(Path("/etc")) == Path("/etc")
    assert roots.writable_home() == Path.home()


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "192.168.1.4", "example.org", "unix:///tmp/socket"])
def test_a_server_for_others_opens_what_it_is_told(tmp_path, listen, address):
    listen(address)
    with pytest.raises(
        AccessError, match=r"^/etc is not opened: this server can be reached.*set DGVIZ_ROOTS to them"
    ):
        checkpoint_path("/etc")
    listen(address, tmp_path, tmp_path / "other")
    assert checkpoint_path(str(tmp_path / "m")) == tmp_path / "m"
    assert roots.writable_home() == tmp_path
    for outside in ("/etc", f"{tmp_path}/../x", f"{tmp_path}x", "~/x", "relative", "\0", "demo:../x", "demo:none"):
        with pytest.raises(
            AccessError, match=r"is not opened: it lies outside the folders that this server may open"
        ):
            checkpoint_path(outside)
    assert checkpoint_path("demo:noisy").is_dir()


def test_named_folders_confine_a_server_for_this_machine_too(tmp_path, listen):
    listen("127.0.0.1", tmp_path)
    with pytest.raises(AccessError, match="lies outside"):
        checkpoint_path("/etc")


def test_links_are_followed_before_a_path_is_judged(tmp_path, listen):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
    (inside / "out").symlink_to(outside)
    (inside / "good").mkdir()
    (outside / "in").symlink_to(inside / "good")
    (tmp_path / "root").symlink_to(inside)
    (inside / "loop").symlink_to("loop")
    listen("0.0.0.0", tmp_path / "root")
    with pytest.raises(AccessError):
        checkpoint_path(str(inside / "out" / "m"))
    assert checkpoint_path(str(outside / "in")) == outside / "in"
    (inside / "model").mkdir()
    (inside / "model" / "config.json").symlink_to(outside / "config.json")  # not even there
    for path in (inside / "model", inside / "model" / "model.safetensors"):
        with pytest.raises(AccessError, match=r"config\.json is not opened"):
            checkpoint_path(str(path))


def test_hub_ids_are_opened_where_the_cache_is_among_the_folders(tmp_path, listen, monkeypatch):
    base, _ = write_pair(tmp_path / "source")
    cached_snapshot(tmp_path / "hub", base)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    listen("0.0.0.0", tmp_path / "hub")
    assert checkpoint_path("org/name@main") == Path("org/name@main")
    listen("0.0.0.0", tmp_path / "source")
    with pytest.raises(AccessError, match="hub is not opened"):
        checkpoint_path("org/name@main")


def test_nothing_is_written_outside(tmp_path, listen):
    listen("0.0.0.0", tmp_path / "a")
    with pytest.raises(AccessError, match="lies outside"):
        start(Command("repair", base="base", tuned="tuned", out=tmp_path / "b"), "title", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["open", "workbench", "workbench?show=model", "open?plan=open"])
def test_a_link_to_elsewhere_is_a_sentence_on_every_page(tmp_path, monkeypatch, page):
    base, tuned = write_pair(tmp_path / "pair")
    monkeypatch.setenv(roots.ROOTS, str(tmp_path / "other"))
    said = texts(open_at(page, base=base, tuned=tuned))
    assert f"{base} is not opened: it lies outside the folders" in said


def test_an_output_elsewhere_is_a_sentence_before_it_is_looked_at(tmp_path, monkeypatch):
    base, tuned = write_pair(tmp_path / "pair")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "diary").write_text("")
    monkeypatch.setenv(roots.ROOTS, str(tmp_path / "pair"))
    app = open_at("workbench?plan=open", base=base, tuned=tuned)
    field = next(item for item in app.text_input if item.label.startswith("Output folder"))
    assert field.value.startswith(f"{tmp_path / 'pair'}/dgviz-exports/")
    assert "lies outside the folders" not in texts(app)
    field.set_value(str(tmp_path / "secret")).run()
    assert "secret is not opened: it lies outside the folders" in texts(app) and "diary" not in texts(app)
    assert not any(button.label == "Write checkpoint" for button in app.button)


def test_scores_and_studies_elsewhere_are_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.csv").write_text("model,benchmark,score\nbase,a,0.5\nspy,a,0.4\ntuned,a,0.3\n")
    (tmp_path / "inside" / "link.csv").symlink_to(tmp_path / "secret.csv")
    monkeypatch.setenv(roots.ROOTS, str(tmp_path / "inside"))
    app = open_at("evidence", base="none")
    app.segmented_control(key="scores-source").set_value("path").run()
    for path in (tmp_path / "secret.csv", f"spy={tmp_path / 'secret.csv'}", tmp_path / "inside" / "link.csv"):
        app.text_input(key="scores-path").set_value(str(path)).run()
        assert "is not opened: it lies outside the folders" in texts(app)
        assert not [box for box in app.selectbox if "spy" in box.options]
    (tmp_path / "inside" / "own.csv").write_text("model,benchmark,score\nbase,a,0.5\nspy,a,0.4\ntuned,a,0.3\n")
    app.text_input(key="scores-path").set_value(str(tmp_path / "inside" / "own.csv")).run()
    app.text_input(key="study-path").set_value("/dev/zero").run()
    assert "/dev/zero is not opened: it lies outside the folders" in texts(app)


def test_a_link_to_a_pair_reads_no_scores_beside_it_before_somebody_says_yes(tmp_path):
    base, tuned = write_pair(tmp_path)
    (tmp_path / "scores.json").write_text("{}")
    app = open_at("evidence", opened=False, base=base, tuned=tuned)
    assert not app.text_input(key="scores-path").value
    app = open_at("evidence", base=base, tuned=tuned)
    assert app.text_input(key="scores-path").value == str(tmp_path / "scores.json")


def test_jobs_about_what_lies_elsewhere_are_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    for folder in ("in", "out"):
        base, tuned = write_pair(tmp_path / folder)
        command = Command("scan", base=base, tuned=tuned)
        start_job(command, root("scan"), folder, lock=tmp_path / f"{folder}-lock")
    assert [job.title for job in known_jobs("scan")] == ["out", "in"]
    monkeypatch.setenv(roots.ROOTS, str(tmp_path / "in"))
    assert [job.title for job in known_jobs("scan")] == ["in"]
    assert find_job("scan", tmp_path / "out-lock") is None
    with pytest.raises(AccessError, match="lies outside"):
        start(command, "again", tmp_path / "out-lock")
    for job in list_jobs(root("scan")):
        job.cancel(force=True)


def test_completions_tell_nothing_of_what_links_lead_to(tmp_path, monkeypatch):
    (tmp_path / "in" / "mine").mkdir(parents=True)
    (tmp_path / "in" / "minor").symlink_to(tmp_path)
    assert completions(f"{tmp_path}/in/mi") == [f"{tmp_path}/in/mine/", f"{tmp_path}/in/minor/"]
    monkeypatch.setenv(roots.ROOTS, str(tmp_path / "in"))
    assert completions(f"{tmp_path}/in/mi") == [f"{tmp_path}/in/mine/"]
    assert completions(f"{tmp_path}/in/../") == []
