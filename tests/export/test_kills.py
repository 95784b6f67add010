"""Exports of every format killed at every step that changes their folder, and continued to the same bytes.

A step is what Python reports to `sys.addaudithook` of a path in the output: opening, renaming, removing, making a
folder. The process ends itself by SIGKILL right before one of them, so that the points are the same on any machine.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from dgviz.cli import main
from dgviz.export.manifest import LOCK, MANIFEST, PARTS
from dgviz.export.plan import REPORT, RUN
from tests.checkpoints import planted_update, write_checkpoint
from tests.export import test_durability as durability

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree"}
FORMATS = {
    "full": ["repair", "--format", "full"],
    "experts": ["repair", "--format", "full"],
    "factors": ["repair", "--format", "factors"],
    "lora": ["repair", "--format", "lora", "--base-name", "org/base"],
    "repair-all": ["repair-all", "--methods", "dg_hard,wise_ft,ties"],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The inputs of every format: plain shards, and stacks of experts."""
    directory = tmp_path_factory.mktemp("pairs")
    generator = torch.Generator().manual_seed(0)
    plain = {f"layers.{i:02d}.weight": 0.02 * torch.randn(192, 160, generator=generator) for i in range(9)}
    stacks = {
        f"layers.{i}.mlp.experts.{name}": 0.02 * torch.randn(4, 64, 48, generator=generator)
        for i in range(4)
        for name in ("gate_up_proj", "down_proj")
    }
    for name, base, shards in (("full", plain, 3), ("experts", stacks, 2)):
        for side, tensors in (("base", base), ("tuned", planted_update(base))):
            write_checkpoint(directory / name / side, tensors, {"name": name}, shards)
    return directory


@pytest.fixture(scope="module")
def with_lora(pairs):
    """The same, with a model that PEFT knows, which is imported for it."""
    from tests.export.test_adapter_export import write_family

    write_family(pairs / "lora", "qwen2_moe_fused")


def run(words, errors, out, kill_at, steps):
    """Be the command line, and end at a step; without one, say how many there are."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event in STEPS and any(str(argument).startswith(str(out)) for argument in arguments[:2]):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    torch.set_num_threads(1)
    with Path(errors).open("w") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
        status = main(words)
    Path(steps).write_text(str(count))
    sys.exit(status)


def start(pairs, kind, out, kill_at=0):
    """Run the command of a format to its end, its own or a kill; return its exit code and the steps it took."""
    name = kind if kind in ("experts", "lora") else "full"
    command, *options = FORMATS[kind]
    words = [command, str(pairs / name / "base"), str(pairs / name / "tuned"), str(out), "--device", "cpu", *options]
    scratch = Path(tempfile.mkdtemp(dir=os.environ["DGVIZ_STATE_DIR"].rpartition("/")[0]))
    arguments = (words, scratch / "errors", out, kill_at, scratch / "steps")
    process = durability.PROCESSES.Process(target=run, args=arguments)
    process.start()
    process.join(timeout=600)
    assert process.exitcode in (0, -signal.SIGKILL), (scratch / "errors").read_text()
    return process.exitcode, int((scratch / "steps").read_text()) if process.exitcode == 0 else 0


def contents(out):
    """The bytes of every file below an output, times left out."""
    found = {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    for name in [name for name in found if name.name == RUN]:
        found[name] = durability.file_bytes(out / name.parent)[RUN]
    return {name: data for name, data in found.items() if name.name != LOCK}


def kill_and_continue(pairs, kind, out, step, undisturbed):
    """Kill an export at a step, look at what lies there, continue it; say whether it is what it would have been."""
    code, _ = start(pairs, kind, out, kill_at=step)
    assert code == -signal.SIGKILL
    unfinished = (".partial", MANIFEST, LOCK, RUN)
    for path in out.rglob("*") if out.is_dir() else ():
        name = path.relative_to(out)
        if path.is_file() and not name.name.endswith(unfinished) and not {PARTS, "adapter.partial"} & set(name.parts):
            assert path.read_bytes() == undisturbed[name], f"killed at step {step}, {name} is not whole"
    ended = kind != "repair-all" and (out / REPORT).exists() and not (out / MANIFEST).exists()
    if not ended:
        assert start(pairs, kind, out)[0] == 0
    return contents(out) == undisturbed


def kill_everywhere(pairs, kind, directory, most):
    """Kill an export at so many of its steps, evenly spread; return their number, and how many came out equal."""
    _, steps = start(pairs, kind, directory / "undisturbed")
    undisturbed = contents(directory / "undisturbed")
    assert steps > 10 and undisturbed
    chosen = sorted({1 + number * (steps - 1) // (most - 1) for number in range(min(most, steps))})
    equal = 0
    for step in chosen:
        equal += kill_and_continue(pairs, kind, directory / "out", step, undisturbed)
        shutil.rmtree(directory / "out", ignore_errors=True)
    print(f"{kind}: killed at {len(chosen)} of {steps} steps, {equal} continued to the same bytes", flush=True)
    return len(chosen), equal


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["factors", "repair-all"])
def test_an_export_of_any_format_continues_to_the_same_bytes(pairs, tmp_path, kind):
    killed, equal = kill_everywhere(pairs, kind, tmp_path, 3)
    assert killed == equal


@pytest.mark.soak
@pytest.mark.parametrize("kind", list(FORMATS))
def test_fifty_steps_of_every_format(pairs, with_lora, tmp_path, kind):
    killed, equal = kill_everywhere(pairs, kind, tmp_path, 50)
    assert killed == equal
