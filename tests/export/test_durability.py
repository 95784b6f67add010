"""Exports under bad conditions: killed, out of space, without permission, raced, continued with something else.

Each kind ends in one sentence or in a process that is gone, with nothing half-written under a final name; the same
command then finishes with the bytes of a run that nothing disturbed.
"""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import CheckpointError, ExportError, ExportFailedError
from dgviz.export import plan_export
from dgviz.export.manifest import LOCK, MANIFEST, PARTS, read_records
from dgviz.export.plan import REPORT, RUN
from dgviz.export.report import read_report
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import planted_update, write_checkpoint

SHARDS = 6
FINISHING_SECONDS = 0.1
FINISHING = 0.15  # points beyond 1: checks, card, index and config, which come after the last tensor


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As many here as in the processes: the number of threads moves the last digits of figures in dgviz.json."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Base and tuned: three matrices of 192 x 160 in each of six shards."""
    directory = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{i:02d}.weight": 0.02 * torch.randn(192, 160, generator=generator) for i in range(3 * SHARDS)}
    write_checkpoint(directory / "base", base, {"name": "synthetic"}, SHARDS)
    write_checkpoint(directory / "tuned", planted_update(base), {"name": "synthetic"}, SHARDS)
    return directory / "base", directory / "tuned"


@pytest.fixture(scope="module")
def undisturbed(pair, tmp_path_factory):
    """The bytes of every file of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(pair, out)
    return file_bytes(out)


def file_bytes(directory):
    """The bytes of every file but the one that says when and how long, and which tensor's figures are in that."""
    found = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != PARTS}
    if RUN in found and REPORT in found:
        figures = read_report(directory)
        found[RUN] = orjson.dumps([figures["overall"], figures["tensors"]])
    return found


# A server that has loaded everything and computed nothing: a run forked from it is a process of its own, and begins
# at once.
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["pytest", "tests.export.test_durability", "tests.export.test_kills", "dgviz.export.write"]
PRELOADED += ["peft", "transformers"] if os.environ.get("DGVIZ_SOAK") == "1" else []
PROCESSES.set_forkserver_preload(PRELOADED)


def command_line(words, errors, file_limit):
    """Be the command line, in a process of its own."""
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    torch.set_num_threads(1)
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    with Path(errors).open("w") as file, contextlib.redirect_stderr(file):
        status = main(words)
    sys.exit(status)


def repair(pair, out, *options, file_limit=0):
    """Start the command line's repair."""
    words = ["repair", *map(str, pair), str(out), "--device", "cpu", *options]
    handle, errors = tempfile.mkstemp(dir=Path(os.environ["DGVIZ_STATE_DIR"]).parent)
    os.close(handle)
    process = PROCESSES.Process(target=command_line, args=(words, errors, file_limit))
    process.errors = Path(errors)
    process.start()
    return process


def finish(pair, out):
    """Run the command line's repair to its good end."""
    process = repair(pair, out)
    process.join(timeout=300)
    assert process.exitcode == 0, process.errors.read_text()


def last_line(process):
    """Wait for a run that must fail; return its one sentence."""
    process.join(timeout=300)
    error = process.errors.read_text()
    assert process.exitcode and "Traceback" not in error, error
    return error.replace("\r", "\n").strip().splitlines()[-1]


def kill(process, out, point, total):
    """Send SIGKILL when a share of all bytes is on disk; beyond 1, that part of `FINISHING` later, as time."""
    while process.is_alive() and written_bytes(out) < min(point, 1) * total:
        time.sleep(0.0005)
    if point > 1:
        time.sleep((point - 1) / FINISHING * FINISHING_SECONDS)
    process.kill()
    process.join(timeout=60)


def written_bytes(out):
    """Return the bytes of tensors on disk, those of a file being written included."""
    total = 0
    try:
        with os.scandir(out) as entries:
            for entry in entries:
                if ".safetensors" in entry.name and "index" not in entry.name:
                    total += entry.stat().st_size
    except FileNotFoundError:  # not begun, or just renamed
        return total
    return total


def shards_of(out):
    """Return the inode of every finished shard by name."""
    return {path.name: path.stat().st_ino for path in Path(out).glob("*.safetensors")}


@dataclass(frozen=True)
class Kill:
    """One kill and what became of it."""

    share: float  # of the bytes of all shards, written when the process died
    ended: bool  # all tensors were written: the kill hit the checks and small files
    before: int  # finished shards
    reused: int  # of them, not written again
    equal: bool


def kill_and_continue(pair, out, point, undisturbed, *options):
    """Kill an export at a share of its bytes (beyond 1: that part of `FINISHING`, as time), check, continue it."""
    total = sum(len(data) for name, data in undisturbed.items() if name.endswith(".safetensors"))
    kill(repair(pair, out, *options), out, point, total)
    share = written_bytes(out) / total
    found = file_bytes(out) if out.is_dir() else {}
    for name, data in found.items():
        if name == MANIFEST:
            json.loads(data)
        elif name not in (LOCK, RUN) and not name.endswith(".partial"):
            assert data == undisturbed[name], f"killed at {share:.1%}, {name} is not whole"
    before = shards_of(out)
    if MANIFEST in found or not before:  # else it had just finished
        finish(pair, out)
    after = shards_of(out)
    reused = sum(after[name] == inode for name, inode in before.items())
    left = file_bytes(out)
    left.pop(LOCK, None)  # empty and nobody's, where the kill came after the manifest was gone
    return Kill(share, share >= 1, len(before), reused, left == undisturbed)


def kill_table(kills):
    """Return the kills in Markdown, in order of their share."""
    lines = ["| killed at, share of bytes | shards finished | reused | equal bytes |", "|---|---|---|---|"]
    for kill in sorted(kills, key=lambda kill: kill.share):
        where = "100 %, in checks and small files" if kill.ended else f"{kill.share:.1%}"
        lines.append(f"| {where} | {kill.before} of {SHARDS} | {kill.reused} | {'yes' if kill.equal else 'no'} |")
    return "\n".join(lines)


def kill_often(pair, undisturbed, directory, count):
    """Kill `count` exports, one in each equal part of the run; none may lose or spoil anything."""
    draw = random.Random(20)
    kills = []
    for number in range(count):
        point = (number + draw.random()) / count * (1 + FINISHING)
        kills.append(kill_and_continue(pair, directory / f"out-{number}", point, undisturbed))
        print(kills[-1], flush=True)
        shutil.rmtree(directory / f"out-{number}")
    print("\n" + kill_table(kills))
    assert all(kill.equal for kill in kills)
    # A kill between a shard's rename and its line in the manifest costs that one shard.
    assert all(kill.before - kill.reused <= 1 for kill in kills)
    assert any(kill.reused > 0 for kill in kills)


@pytest.mark.slow
def test_a_killed_export_continues_to_the_same_bytes(pair, undisturbed, tmp_path):
    kill_often(pair, undisturbed, tmp_path, 4)


@pytest.mark.soak
def test_fifty_kills(pair, undisturbed, tmp_path):
    kill_often(pair, undisturbed, tmp_path, 50)


def ended_at_the_last_step(pair, out, monkeypatch, format="full"):
    """Export, and be ended when the records of what is finished are being taken away."""

    def remove_one(folder):
        sorted(folder.glob("*.*"))[0].unlink()
        raise OSError("ended here")

    with monkeypatch.context() as patch, pytest.raises(ExportFailedError, match="ended here"):
        patch.setattr(shutil, "rmtree", remove_one)
        list(iter_export(plan_export(open_pair(*pair), RepairPlan(), out, format=format), "cpu"))
    return {path.name: path.stat().st_ino for path in out.iterdir() if path.is_file() and path.name != MANIFEST}


@pytest.mark.parametrize("format", ["full", "factors"])
def test_an_export_ended_at_its_last_step_writes_nothing_again(pair, tmp_path, monkeypatch, format):
    out = tmp_path / "out"
    before = ended_at_the_last_step(pair, out, monkeypatch, format)
    *rows, result = iter_export(plan_export(open_pair(*pair), RepairPlan(), out, format=format), "cpu")
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == before
    assert [row.name for row in rows] == list(result.tensors) and result.report["verified"]
    other = tmp_path / "other"
    list(iter_export(plan_export(open_pair(*pair), RepairPlan(), other, format=format), "cpu"))
    assert file_bytes(out) == file_bytes(other)


def test_an_export_ended_at_its_last_step_and_spoiled_is_refused(pair, tmp_path, monkeypatch):
    base, tuned = copied(pair, tmp_path)
    out = tmp_path / "out"
    ended_at_the_last_step((base, tuned), out, monkeypatch)
    shard = sorted(shards_of(out))[0]
    data = (out / shard).read_bytes()
    (out / shard).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ExportError, match=f"{shard} is not what was written there .SHA-256"):
        list(iter_export(plan_export(open_pair(base, tuned), RepairPlan(), out), "cpu"))
    (out / shard).write_bytes(data)
    values = load_file(tuned / shard)
    save_file({name: value + 1 for name, value in values.items()}, tuned / shard, metadata={"format": "pt"})
    with pytest.raises(ExportError, match="holds other values"):
        list(iter_export(plan_export(open_pair(base, tuned), RepairPlan(), out), "cpu"))
    assert (out / MANIFEST).exists() and (out / shard).read_bytes() == data


@pytest.mark.slow
def test_an_export_of_several_processes_is_killed_and_continued_by_one(pair, undisturbed, tmp_path):
    kill = kill_and_continue(pair, tmp_path / "out", 0.4, undisturbed, "--workers", "2")
    assert kill.equal and kill.before - kill.reused <= 1, kill  # one may be there whose record is not


@pytest.mark.slow
def test_one_output_killed_again_and_again(pair, undisturbed, tmp_path):
    out = tmp_path / "out"
    total = sum(len(data) for name, data in undisturbed.items() if name.endswith(".safetensors"))
    for point in (0.3, 0.6):
        kill(repair(pair, out), out, point, total)
    finish(pair, out)
    assert file_bytes(out) == undisturbed


def test_a_limit_on_file_size_is_a_sentence_and_can_be_continued(pair, undisturbed, tmp_path):
    out = tmp_path / "out"
    size = len(undisturbed[f"model-00001-of-{SHARDS:05d}.safetensors"])
    sentence = last_line(repair(pair, out, file_limit=size // 2))
    assert sentence.startswith(f"dgviz repair: writing {out} failed: File too large"), sentence
    assert "repeat the same command to continue" in sentence
    assert {path.name for path in out.iterdir()} == {MANIFEST}
    finish(pair, out)
    assert file_bytes(out) == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB, mounted for this test alone."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    done = subprocess.run(command, capture_output=True, text=True) if mount else None
    if done is None or done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip() if done else 'there is no mount'}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_is_a_sentence_and_can_be_continued(pair, undisturbed, tmp_path, small_disk):
    plan = plan_export(open_pair(*pair), RepairPlan(), small_disk / "out")
    run = iter_export(plan, "cpu")
    for _ in range(4):  # into the second shard
        next(run)
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(ExportFailedError, match=r"out failed: No space left on device; what is finished is kept"):
        list(run)
    assert {path.name for path in plan.out.iterdir()} == {MANIFEST, PARTS, plan.shards[0].name}
    finished = shards_of(plan.out)
    (small_disk / "filler").unlink()
    finish(pair, plan.out)
    assert finished.items() <= shards_of(plan.out).items()
    assert file_bytes(plan.out) == undisturbed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: run as another user to see it")
def test_a_folder_without_permission_is_a_sentence(pair, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    sentence = last_line(repair(pair, tmp_path / "locked" / "out"))
    assert f"the output {tmp_path / 'locked' / 'out'} cannot be made: {tmp_path / 'locked'} may not be" in sentence


def test_a_disk_mounted_read_only_is_a_sentence(pair, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    sentence = last_line(repair(pair, small_disk / "out"))
    assert f"the output {small_disk / 'out'} cannot be made: {small_disk} may not be written" in sentence
    assert not (small_disk / "out").exists()


def started(pair, out, count=4):
    """An export stopped after some tensors, with one shard finished."""
    run = iter_export(plan_export(open_pair(*pair), RepairPlan(), out), "cpu")
    for _ in range(count):
        next(run)
    run.close()
    return next(iter(shards_of(out)))


def copied(pair, directory):
    """A copy of the pair that a test may spoil."""
    return tuple(shutil.copytree(side, directory / side.name) for side in pair)


def test_an_input_that_vanishes_is_a_sentence_and_can_be_brought_back(pair, undisturbed, tmp_path):
    base, tuned = copied(pair, tmp_path)
    plan = plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out")
    run = iter_export(plan, "cpu")
    for _ in range(4):
        next(run)
    lost = tuned / plan.shards[-1].name
    lost.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{lost.name}.*No such file") as caught:
        list(run)
    assert str(caught.value).endswith(f"repeat the same command to continue into {plan.out}")
    assert shards_of(plan.out).keys() == {plan.shards[0].name}
    (tmp_path / "elsewhere").rename(lost)
    finish((base, tuned), plan.out)
    assert file_bytes(plan.out) == undisturbed


def test_two_writers(pair, undisturbed, tmp_path):
    out = tmp_path / "out"
    run = iter_export(plan_export(open_pair(*pair), RepairPlan(), out), "cpu")
    for _ in range(4):
        next(run)
    before = file_bytes(out)
    sentence = last_line(repair(pair, out))
    assert sentence == f"dgviz repair: another process is writing {out}; wait for it or choose another folder"
    assert file_bytes(out) == before
    list(run)
    assert file_bytes(out) == undisturbed


@pytest.mark.parametrize("in_place", [False, True])
def test_a_continued_export_refuses_other_contents_and_says_both(pair, tmp_path, later, in_place):
    base, tuned = copied(pair, tmp_path)
    shard = started((base, tuned), tmp_path / "out")
    name, before = next(iter(read_records(tmp_path / "out")[shard]["inputs"].items()))
    stat = (tuned / shard).stat()
    values = load_file(tuned / shard)
    values[name] = values[name] + 1
    save_file(values, tmp_path / "other", metadata={"format": "pt"})
    if in_place:  # size and inode stay too
        (tuned / shard).write_bytes((tmp_path / "other").read_bytes())
        assert (tuned / shard).stat().st_ino == stat.st_ino and (tuned / shard).stat().st_size == stat.st_size
    else:
        (tmp_path / "other").replace(tuned / shard)
    os.utime(tuned / shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a date decides nothing
    with pytest.raises(ExportError, match=f"{shard} holds other values for '{name}'") as caught:
        list(iter_export(plan_export(open_pair(base, tuned), RepairPlan(), tmp_path / "out"), "cpu"))
    said = [word for word in str(caught.value).replace(",", " ").split() if word.endswith("...")]
    assert said[0] == before["tuned"][:12] + "..." and said[1] != said[0]
    assert shards_of(tmp_path / "out").keys() == {shard}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--rule", "mp_edge"), "--rule was dg_hard and is now mp_edge"),
        (("--dtype", "bfloat16"), "--dtype was auto and is now bfloat16"),
        (("--exclude", "layers.01"), "--exclude was not given and is now layers.01"),
        (("--format", "lora"), "--format was full and is now lora"),
    ],
)
def test_a_continued_export_refuses_other_options_and_says_both(pair, tmp_path, option, said, monkeypatch):
    started(pair, tmp_path / "out")
    before = file_bytes(tmp_path / "out")
    errors = []
    monkeypatch.setattr("sys.stderr", type("Lines", (), {"write": errors.append, "flush": lambda self: None})())
    assert main(["repair", *map(str, pair), str(tmp_path / "out"), "--device", "cpu", *option]) != 0
    assert said in "".join(errors) and "repeat the earlier command to finish it" in "".join(errors)
    assert file_bytes(tmp_path / "out") == before
