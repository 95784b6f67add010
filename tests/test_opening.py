"""Files that somebody names: regular ones, where they may lie, and whatever their names have come to mean."""

import os
import threading
from pathlib import Path

import pytest

import dgviz
from dgviz.checkpoint import open_checkpoint, open_pair, read_bytes
from dgviz.cli import main
from dgviz.demo import demo_paths
from dgviz.errors import AccessError, CheckpointError, DgvizError, PlanError, ScoresError
from dgviz.export import copies, plan_export
from dgviz.opening import open_named, read_named
from dgviz.repair.plan import RepairPlan, read_plan_file
from dgviz.scores import read_scores
from dgviz.scores.read import MAX_SCORES_BYTES
from dgviz.scores.recovery import read_study
from tests.checkpoints import random_tensors, write_checkpoint, write_pair

SCORES = "model,benchmark,score\nbase,a,0.5\n"


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A folder that may be opened beside one that may not, with a secret in it."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.csv").write_text(SCORES)
    (outside / "secret.json").write_text("{}")
    monkeypatch.setenv("DGVIZ_ROOTS", str(inside))
    return inside, outside


def test_what_is_opened_is_told_where_it_lies(tmp_path):
    (tmp_path / "file").write_text("words")
    (tmp_path / "link").symlink_to("file")
    stream, real = open_named(tmp_path / "link")
    with stream:
        assert (stream.read(), real) == (b"words", str(tmp_path / "file"))


@pytest.mark.parametrize("read", [read_study, read_plan_file, lambda path: read_scores([path])])
class TestWhateverReads:
    """A file of scores, a study, a plan."""

    @pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/dev/tty", "/", "/dev/fd/0"])
    def test_devices_and_folders_are_refused_at_once(self, read, path):
        if path == "/" and read not in (read_study, read_plan_file):
            pytest.skip("a folder of scores is one")
        with pytest.raises((ScoresError, PlanError), match="cannot be read|there is no file"):
            read(path)

    def test_a_pipe_is_not_waited_for(self, read, tmp_path):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises((ScoresError, PlanError), match="it is a pipe and no regular file"):
            read(tmp_path / "pipe.json")

    def test_sizes_have_a_cap(self, read, tmp_path):
        with (tmp_path / "large.json").open("wb") as stream:
            stream.truncate(MAX_SCORES_BYTES + 1)  # sparse: nothing is written
        with pytest.raises((ScoresError, PlanError), match=r"it is larger than 100,000,000 bytes"):
            read(tmp_path / "large.json")

    def test_nothing_outside_the_folders_is_read(self, read, roots):
        inside, outside = roots
        (inside / "link.csv").symlink_to(outside / "secret.csv")
        for path in (outside / "secret.csv", inside / "link.csv", inside / ".." / "outside" / "secret.json"):
            with pytest.raises(AccessError, match="is not opened: it lies outside the folders"):
                read(path)

    def test_a_name_that_no_file_has(self, read, tmp_path):
        for name in ("a\0b", "~nobody-of-this-name/x", "x" * 5000, "\ud800"):
            with pytest.raises((ScoresError, PlanError)):
                read(name)


def test_a_folder_of_scores_keeps_to_the_folders(roots):
    inside, outside = roots
    (inside / "scores.csv").write_text(SCORES)
    assert read_scores([inside]).model_names() == ("base",)
    (inside / "results.json").symlink_to(outside / "secret.json")
    with pytest.raises(AccessError, match=r"results\.json is not opened"):
        read_scores([inside])


def test_a_folder_of_everything_is_no_folder_of_scores(tmp_path, monkeypatch):
    monkeypatch.setattr("dgviz.scores.read._LOOKED_AT", 10)
    for number in range(11):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(ScoresError, match="more than 10 files: name the folder that the scores are in"):
        read_scores([tmp_path])


def test_what_comes_with_dgviz_is_read_whatever_the_folders(roots):
    assert read_named(Path(dgviz.__file__), 10**6)
    assert main(["inspect", *(str(demo_paths()[name]) for name in ("base", "noisy"))]) == 0


def test_the_commands_that_a_server_runs_keep_to_the_folders(roots, tmp_path, capsys):
    _, outside = roots
    base, tuned = write_pair(outside / "pair")
    assert main(["scan", str(base), str(tuned)]) == 2
    assert "is not opened: it lies outside the folders" in capsys.readouterr().err


# --- a name that comes to mean another file -------------------------------------------------------------------------


def replace(path, target):
    path.unlink()
    path.symlink_to(target)


def test_a_link_swapped_in_after_planning_copies_no_secret(tmp_path):
    base, tuned = write_pair(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (tuned / "tokenizer.json").write_text("{}")
    (tuned / "more").mkdir()
    (tuned / "more" / "notes.txt").write_text("mine")
    plan = plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    assert {"tokenizer.json", "more/notes.txt"} <= {name for name, _, _ in plan.sidecars}
    (tmp_path / "out").mkdir()
    replace(tuned / "tokenizer.json", tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is a link to .*secret, outside its directory"):
        copies.copy_sidecars(plan)
    (tuned / "tokenizer.json").unlink()
    (tuned / "tokenizer.json").write_text("{}")
    (tuned / "more").rename(tmp_path / "away")  # a folder as well
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("secret")
    (tuned / "more").symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"notes\.txt is a link to .*other/notes\.txt, outside its directory"):
        copies.copy_sidecars(plan)
    assert "secret" not in {path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_the_directory_of_a_checkpoint_that_becomes_a_link_is_another_one(tmp_path):
    base, tuned = write_pair(tmp_path)
    plan = plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    tuned.rename(tmp_path / "away")
    tuned.symlink_to(tmp_path / "away")
    with pytest.raises(CheckpointError, match="is a link to"):
        read_bytes(plan.pair.tensors[0].tuned)


def test_weights_that_become_a_link_are_not_read(tmp_path):
    model = write_checkpoint(tmp_path / "m", random_tensors())
    info = next(iter(open_checkpoint(model).tensors.values()))
    (tmp_path / "secret").write_bytes(b"s" * 10**6)
    replace(model / "model.safetensors", tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a link to .*secret, outside"):
        read_bytes(info)


def test_a_list_of_modules_that_never_ends_is_no_list(tmp_path):
    base, tuned = write_pair(tmp_path)
    (tuned / "modules.json").symlink_to("/dev/zero")
    with pytest.raises(DgvizError, match="modules"):
        plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")


def test_a_name_that_changes_all_the_time_is_never_read_as_another(tmp_path):
    """Whatever is opened is in the directory: there is no moment between looking and opening."""
    base, tuned = write_pair(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (tuned / "notes.txt").write_text("mine")
    plan = plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    side = next(item for item in plan.sidecars if item[0] == "notes.txt")
    over = threading.Event()

    def swap():
        (tuned / "link").symlink_to(tmp_path / "secret")
        (tuned / "file").write_text("mine")
        while not over.is_set():
            for name in ("link", "file"):
                os.link(tuned / name, tuned / "fresh", follow_symlinks=False)
                (tuned / "fresh").replace(tuned / "notes.txt")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(2000):
            try:
                with copies._open_sidecar(plan, side[1], side[2]) as stream:
                    seen.add(stream.read())
            except CheckpointError:
                seen.add(None)
    finally:
        over.set()
        thread.join()
    assert seen <= {b"mine", None}
