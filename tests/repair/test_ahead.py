"""Tensors worked on ahead: in order, some passed over, never more than there is room for, wherever that is."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from dgviz.checkpoint import content_hash, fingerprint, open_pair
from dgviz.errors import DgvizError
from dgviz.export import plan_export
from dgviz.export.made import made_ahead
from dgviz.export.write import iter_export
from dgviz.jobs.executor import InProcess, InThread, NamedTask, Processes
from dgviz.repair import ahead
from dgviz.repair.ahead import Ahead
from dgviz.repair.hire import hire
from dgviz.repair.plan import RepairPlan
from dgviz.repair.tensor import repair_tensor
from dgviz.spectra.svd import decompose
from tests.checkpoints import planted_update, write_checkpoint


class Threads:
    """A further place to compute: all that an executor has to be."""

    device, count, threads, spread, ahead = "cpu", 2, None, False, 4

    def __init__(self):
        self._pool = ThreadPoolExecutor(self.count)

    def submit(self, task, *arguments, memory=0, **keywords):
        return self._pool.submit(task, self.device, *arguments, **keywords)

    def close(self):
        self._pool.shutdown(cancel_futures=True)


class Names:
    """A task that notes what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, device, tensors):
        self.given += [paired.name for paired in tensors]
        return [paired.name for paired in tensors]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{i:02d}.weight": 0.02 * torch.randn(96, 64, generator=generator) for i in range(12)}
    sides = {"base": base, "tuned": planted_update(base)}
    return open_pair(*(write_checkpoint(directory / side, own, {"a": 1}) for side, own in sides.items()))


class Kept(Processes):
    """Processes that remember what was submitted to them."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.futures = []

    def submit(self, *arguments, **keywords):
        self.futures.append(super().submit(*arguments, **keywords))
        return self.futures[-1]


def test_processes_are_done_with_a_tensor_before_it_is_asked_for(pair, tmp_path):
    for side in (pair.base, pair.tuned):
        shutil.copytree(side.path, tmp_path / side.path.name)
    copied = open_pair(tmp_path / "base", tmp_path / "tuned")
    with closing(Kept(2, warm="dgviz.repair.tensor", joined=True)) as executor:
        make = made_ahead(copied, [(RepairPlan(), None), (RepairPlan(method="wise_ft"), None)], executor, tmp_path)
        make(copied.tensors[0])
        wait(executor.futures)
        shutil.rmtree(tmp_path / "tuned")  # who comes too late has nothing to read
        made = make(copied.tensors[1])
    kept = [repair_tensor(pair.tensors[1], RepairPlan(method=method), "cpu") for method in ("dg_hard", "wise_ft")]
    assert [made[number].report.written for number in (0, 1)] == ["repaired", "repaired"]
    for number, own in enumerate(kept):
        assert torch.equal(torch.from_numpy(made[number].data).view(own.tensor.dtype), own.tensor.flatten())


@pytest.mark.parametrize(("place", "most"), [(InProcess, 1), (partial(InThread, "cpu"), 2), (Threads, 4)])
def test_tensors_come_in_order_and_no_more_are_begun_than_wait(pair, place, most):
    names = Names()
    with closing(place()) as executor:
        make = Ahead(executor, names, pair.tensors, [RepairPlan()])
        for number, paired in enumerate(pair.tensors):
            if number % 3 == 1:
                continue  # of a file that is finished already
            assert make(paired) == paired.name
            assert len(names.given) <= number + 1 + most
    asked = [paired.name for number, paired in enumerate(pair.tensors) if number % 3 != 1]
    assert set(asked) <= set(names.given) and len(set(names.given)) == len(names.given)


def test_without_memory_for_more_one_tensor_is_worked_on_at_a_time(pair, monkeypatch):
    monkeypatch.setattr(ahead, "memory_budget", lambda workers: 0)
    names = Names()
    with closing(Threads()) as executor:
        make = Ahead(executor, names, pair.tensors, [RepairPlan()])
        for number, paired in enumerate(pair.tensors):
            assert make(paired) == paired.name and len(names.given) == number + 1


def test_another_executor_writes_the_same_bytes(pair, tmp_path):
    with closing(Threads()) as executor:
        list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "threads"), executor))
    list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "alone"), "cpu"))
    written, expected = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("threads", "alone"))
    assert written == expected


def test_processes_are_hired_where_the_work_is_worth_them(pair):
    plans = [RepairPlan()]
    assert isinstance(hire(pair.tensors, plans, "cpu"), InProcess)
    with closing(hire(pair.tensors, plans, "cpu", workers=2)) as executor:
        assert isinstance(executor, Processes) and executor.count == 2
    with pytest.raises(DgvizError, match="at least 1 worker"):
        hire(pair.tensors, plans, "cpu", workers=0)


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        (1, None, ["cuda:0"]),
        (1, 1, ["cuda:0"]),
        (1, 3, ["cuda:0"] * 3),
        (2, None, ["cuda:0", "cuda:1"]),
        (2, 1, ["cuda:0"]),
        (3, 5, ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:2"]),
    ],
)
def test_processes_are_spread_over_gpus(pair, monkeypatch, gpus, workers, expected):
    found = [SimpleNamespace(id=f"cuda:{number}") for number in range(gpus)]
    monkeypatch.setattr(decompose, "list_devices", lambda: [*found, SimpleNamespace(id="cpu")])
    monkeypatch.setattr(decompose, "resolve_device", lambda device: "cuda:0")
    monkeypatch.setattr("dgviz.repair.hire._DRIVERS", ("/dev/null",))
    task = NamedTask("tests.repair.test_ahead", "name_device")
    with closing(hire(pair.tensors, [RepairPlan()], "auto", workers)) as executor:
        assert executor.count == len(expected) and executor.device == "cuda:0"
        assert isinstance(executor, InThread) == (expected == ["cuda:0"])
        assert sorted(future.result() for future in [executor.submit(task) for _ in expected]) == expected


class Stages:
    """A device that computes a tensor only while the next is being hashed and the one before is being written."""

    def __init__(self, tensors):
        self.hashed = {paired.name: threading.Event() for paired in tensors}
        self.computing = {paired.name: threading.Event() for paired in tensors}
        self._places = {paired.name: place for place, paired in enumerate(tensors)}
        self._tensors = tensors

    def hash(self, info):
        """Stand for `content_hash`."""
        self.hashed[info.name].set()
        return "0"

    def __call__(self, device, tensors):
        """Stand for what a GPU makes: it is done when the processor has begun with what comes next."""
        (paired,) = tensors
        self.computing[paired.name].set()
        for later in self._tensors[self._places[paired.name] + 1 :][:1]:
            assert self.hashed[later.name].wait(30)
        return [paired.name]


def test_on_a_gpu_one_tensor_is_computed_while_others_are_hashed_and_written(pair, monkeypatch):
    """No clock is looked at: who waited for the other stages in vain would fail, or never end."""
    stages = Stages(pair.tensors)
    monkeypatch.setattr(ahead, "content_hash", stages.hash)
    monkeypatch.setattr(ahead, "batch_size", lambda weight, device: 1)
    with closing(InThread("cuda:0")) as executor:
        make = Ahead(executor, stages, pair.tensors, [RepairPlan()])
        for before, paired in pairwise(pair.tensors):
            assert make(before) == before.name
            assert stages.computing[paired.name].wait(30)  # while this thread writes the one before
        assert make(paired) == paired.name


class Hashed:
    """A task that asks for the hashes of what it is given, as all that read them do."""

    def __call__(self, device, tensors):
        time.sleep(0.01)
        return [content_hash(paired.base) + content_hash(paired.tuned) for paired in tensors]


def test_nothing_is_hashed_twice(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", -1)
    read, whole = [], fingerprint.iter_chunks

    def slowly(info):
        """Read as from a disk."""
        read.append((info.file, info.name))
        time.sleep(0.02)
        return whole(info)

    monkeypatch.setattr(fingerprint, "iter_chunks", slowly)
    monkeypatch.setattr(ahead, "batch_size", lambda weight, device: 2)
    with closing(InThread("cuda:0")) as executor:
        make = Ahead(executor, Hashed(), pair.tensors, [RepairPlan()])
        assert len({make(paired) for paired in pair.tensors}) == len(pair.tensors)
    assert len(read) == len(set(read)) == 2 * len(pair.tensors)


def test_several_processes_hash_for_themselves(pair, monkeypatch):
    """Else all of them would wait for one."""
    hashed = []
    monkeypatch.setattr(ahead, "content_hash", hashed.append)
    monkeypatch.setattr(ahead, "batch_size", lambda weight, device: 1)
    monkeypatch.setattr(Threads, "device", "cuda:0")
    with closing(Threads()) as executor:
        make = Ahead(executor, Names(), pair.tensors, [RepairPlan()])
        assert [make(paired) for paired in pair.tensors] == [paired.name for paired in pair.tensors]
    assert hashed == []


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.cuda)])
def test_what_a_thread_of_this_process_makes_is_the_same(pair, tmp_path, device):
    for name, where in (("thread", InThread(device)), ("alone", InProcess(device))):
        with closing(where):
            list(iter_export(plan_export(pair, RepairPlan(), tmp_path / name), where))
    written, expected = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("thread", "alone"))
    assert written == expected


def name_device(device):
    time.sleep(0.2)  # so that the next task finds this process busy
    return device
