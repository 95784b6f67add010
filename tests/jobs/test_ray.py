"""A cluster of three nodes on this machine: it computes what one process does, whatever is lost on the way."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
import torch

from dgviz.analysis.methods import comparison_table, iter_comparison
from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import CheckpointError, ClusterError, ExportFailedError, PackageError
from dgviz.export import plan_export
from dgviz.export.batch import iter_exports, plan_exports
from dgviz.export.manifest import PARTS
from dgviz.export.plan import RUN
from dgviz.export.spread import refuse_other_folder
from dgviz.export.write import iter_export
from dgviz.jobs.executor import InProcess, NamedTask
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import planted_update, write_checkpoint
from tests.jobs import executor_tasks as tasks

# By default Ray has its processes yield to all others: beside other tests they would wait long.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_worker_niceness="0")
ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from dgviz.jobs.ray_cluster import RayCluster  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
REPAIRS = [RepairPlan(), *(RepairPlan(method=name) for name in ("ties", "norm_matched"))]
SHARDS = 6


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of one core; this process is connected to the first."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def executor(cluster):
    with closing(RayCluster(cluster.address)) as executor:
        yield executor


def write_pair(directory, shape, count, shards):
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{i:02d}.weight": 0.02 * torch.randn(*shape, generator=generator) for i in range(count)}
    base["experts.gate_up_proj"] = 0.02 * torch.randn(3, 96, 64, generator=generator)
    sides = {"base": base, "tuned": planted_update(base)}
    return open_pair(*(write_checkpoint(directory / name, own, {"a": 1}, shards) for name, own in sides.items()))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Large enough for a node to be killed in the middle of a file."""
    return write_pair(tmp_path_factory.mktemp("pair"), (640, 512), 4 * SHARDS, SHARDS)


@pytest.fixture
def small(tmp_path):
    return write_pair(tmp_path / "small", (96, 64), 5, 3)


@pytest.fixture(scope="module")
def alone(pair, tmp_path_factory):
    """What one process writes."""
    before = torch.get_num_threads()
    out = tmp_path_factory.mktemp("alone") / "out"
    list(iter_export(plan_export(pair, RepairPlan(), out), InProcess(threads=1)))
    torch.set_num_threads(before)
    return files(out)


def files(out):
    """All bytes but the file of times; nothing is left of what was unfinished."""
    assert not [path.name for path in out.rglob("*") if path.name.endswith(".partial") or path.name == PARTS]
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != RUN}


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def find_writer(cluster, out):
    """The first process of a node but ours that has a file open which is not finished, with the node and the file."""
    for node in cluster.worker_nodes:
        for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
            with suppress(psutil.Error):
                for file in process.open_files():
                    if file.path.startswith(str(out)) and file.path.endswith(".partial"):
                        return node, process, Path(file.path)
    return None


def test_a_cluster_carries_out_the_same_tasks(executor, tmp_path):
    add, power, counted = tasks.Add(10), NamedTask("tests.jobs.executor_tasks", "power"), tasks.Counted()
    assert (executor.device, executor.count, executor.threads) == ("cpu", 3, 1)
    sums = [executor.submit(add, number, memory=2**20) for number in range(6)]
    powers = [executor.submit(power, base=2, exponent=number) for number in range(6)]
    failed = executor.submit(tasks.fail, "on purpose")
    assert [future.result(60) for future in sums] == [("cpu", 10 + number) for number in range(6)]
    assert [future.result(60) for future in powers] == [("cpu", 2**number) for number in range(6)]
    with pytest.raises(ValueError) as raised:
        failed.result(60)
    assert str(raised.value) == "on purpose"
    calls = [executor.submit(counted).result(60)[1] for _ in range(6)]  # a process keeps what it was given
    assert max(calls) > 1
    assert list(executor.stream(tasks.count_up, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError):
        list(executor.stream(tasks.count_up, "five"))
    with pytest.raises(ClusterError, match="gave it up after 3 more attempts"):
        executor.submit(tasks.die).result(60)


@pytest.mark.parametrize("output", ["full", "factors"])
def test_a_cluster_writes_the_same_bytes(pair, executor, alone, tmp_path, output):
    if output != "full":
        list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "alone", output), InProcess(threads=1)))
        alone = files(tmp_path / "alone")
    items = list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "out", output), executor))
    assert files(tmp_path / "out") == alone
    assert [item.name for item in items[:-1]] == list(dict.fromkeys(item.name for item in items[:-1]))


def test_several_methods_and_their_comparison_come_out_the_same(small, executor, tmp_path):
    found = []
    for number, where in enumerate((InProcess(threads=1), executor)):
        plans, _ = plan_exports(small, REPAIRS, tmp_path / str(number))
        list(iter_exports(plans, where))
        found.append([files(plan.out) for plan in plans])
    assert found[0] == found[1]
    tables = [
        comparison_table(list(iter_comparison(small, REPAIRS, where)), REPAIRS)
        for where in (InProcess(threads=1), executor)
    ]
    assert tables[0] == tables[1]


def test_a_scan_on_a_cluster_has_the_same_figures_and_fills_the_store(cluster, small, tmp_path, monkeypatch, capsys):
    reports = []
    for number, more in enumerate(([], ["--ray", cluster.address])):
        monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / str(number)))
        assert main(["scan", str(small.base.path), str(small.tuned.path), "--json", "--workers", "2", *more]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert [report["computed"] for report in reports] == [8] * 2
    for report in reports:
        del report["seconds"]
        for tensor in report["weights"].values():
            for row in tensor["matrices"]:
                del row["seconds"]
    assert reports[0] == reports[1]
    assert main(["scan", str(small.base.path), str(small.tuned.path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["computed"], again["stored"]) == (0, 8)


def test_a_driver_that_is_killed_half_way_is_continued(cluster, pair, executor, alone, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "dgviz", "repair", str(pair.base.path), str(pair.tuned.path), str(out)]
    driver = subprocess.Popen([*words, "--ray", cluster.address], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list((out / PARTS).glob("*.json")) or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    _, said = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, said
    kept = [path.stat().st_mtime_ns for path in (out / PARTS).glob("*.json")]
    assert 0 < len(kept) < SHARDS
    plan = plan_export(pair, RepairPlan(), out)
    assert 0 < len(plan.finished) < SHARDS
    list(iter_export(plan, executor))
    assert files(out) == alone


def test_what_was_begun_here_is_finished_on_a_cluster_and_the_other_way_round(pair, executor, alone, tmp_path):
    places = InProcess(threads=1), executor
    for number, (first, second) in enumerate((places, places[::-1])):
        out = tmp_path / str(number)
        with closing(iter_export(plan_export(pair, RepairPlan(), out), first)) as export:
            while not list((out / PARTS).glob("*.json")):
                next(export)
        plan = plan_export(pair, RepairPlan(), out)
        assert plan.finished
        list(iter_export(plan, second))
        assert files(out) == alone


def test_an_error_of_a_task_is_the_sentence_it_would_be_here(executor, small, tmp_path):
    plan = plan_export(small, RepairPlan(), tmp_path / "out")
    (file,) = {paired.tuned.file for paired in small.tensors if paired.name == "layers.00.weight"}
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match="ends inside tensor .* it has become shorter .* to continue into"):
        list(iter_export(plan, executor))


def test_a_node_that_sees_other_files_is_named(cluster, tmp_path):
    mine = Path("/proc/self/cmdline")  # of every process its own
    if not mine.exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(ClusterError, match="the node .* does not see /proc/self/cmdline as it is here .* same path"):
        RayCluster(cluster.address, files=[mine])
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportFailedError, match="out is another folder on the node"):
        refuse_other_folder(tmp_path / "out", {"version": 5})


def test_a_run_that_is_cancelled_goes_on_from_what_is_finished(cluster, pair, alone, tmp_path):
    out = tmp_path / "out"
    executor = RayCluster(cluster.address)
    with closing(executor), closing(iter_export(plan_export(pair, RepairPlan(), out), executor)) as export:
        next(export)
    assert list(iter_export(plan_export(pair, RepairPlan(), out), InProcess(threads=1)))
    assert files(out) == alone


def test_closing_ends_what_runs_and_what_waits(cluster, tmp_path):
    executor = RayCluster(cluster.address)
    futures = [executor.submit(tasks.mark_and_wait, tmp_path, number) for number in range(5)]
    wait_for(lambda: len(list(tmp_path.iterdir())) == 3)
    pids = [int(path.name.partition("-")[2]) for path in tmp_path.iterdir()]
    executor.close()
    assert all(future.cancelled() for future in futures)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_node_that_is_killed_half_way_changes_no_byte(cluster, pair, executor, alone, tmp_path):
    out, marks = tmp_path / "out", tmp_path / "marks"
    marks.mkdir()
    ready = [executor.submit(tasks.mark_and_wait, marks, number) for number in range(3)]
    wait_for(lambda: len(list(marks.iterdir())) == 3)  # every node has a process
    (marks / "go").touch()
    assert [future.result(60) for future in ready] == [0, 1, 2]
    with ThreadPoolExecutor(1) as pool, closing(executor):  # its end ends the export, should that wait for ever
        export = pool.submit(list, iter_export(plan_export(pair, RepairPlan(), out), executor))
        wait_for(lambda: find_writer(cluster, out) or export.done())
        node, process, file = find_writer(cluster, out)
        process.suspend()
        assert file.exists()  # in the middle of it
        cluster.remove_node(node, allow_graceful=False)
        export.result(240)
    assert files(out) == alone
    with suppress(psutil.NoSuchProcess):  # one that was only slow wakes up, and spoils nothing
        process.resume()
        process.wait(30)
    assert files(out) == alone
    cluster.add_node(**NODE)


def test_a_task_that_is_lost_without_a_word_begins_anew(cluster, tmp_path):
    """As Ray loses one now and then when a node dies: no error, no process, no demand."""
    with closing(RayCluster(cluster.address, lost=1.0)) as executor:
        assert list(executor.stream(tasks.vanish, tmp_path, 1, 2)) == [0, 1, 2, 3, 4]
        assert executor.submit(tasks.vanish_at_once, tmp_path, 1).result(60) == "back"


def test_a_task_that_is_lost_again_and_again_is_given_up(cluster, tmp_path):
    with closing(RayCluster(cluster.address, lost=0.0)) as executor:
        with pytest.raises(ClusterError, match="lost a task 4 times without a word"):
            list(executor.stream(tasks.vanish, tmp_path, 9, 2))
        with pytest.raises(ClusterError, match="lost a task 4 times without a word"):
            executor.submit(tasks.vanish_at_once, tmp_path, 9).result(60)


def test_a_gpu_is_asked_for_and_missed_when_its_node_is_lost(cluster):
    node = cluster.add_node(**NODE, num_gpus=1)
    with closing(RayCluster(cluster.address, patience=0.0)) as executor:
        assert (executor.device, executor.count, executor.threads) == ("cuda:0", 1, None)
        assert executor.submit(tasks.see_gpus).result(60) == ("cuda:0", "0")
        cluster.remove_node(node)
        with pytest.raises(ClusterError, match="no node of the cluster has 1 CPU and 1 GPU any more"):
            executor.submit(tasks.see_gpus).result(60)
    with pytest.raises(ClusterError, match="the cluster has no GPU"):
        RayCluster(cluster.address, "cuda")


def test_an_address_where_no_cluster_is_and_ray_that_is_missing_are_said(monkeypatch):
    ray.shutdown()
    with pytest.raises(ClusterError, match="no Ray cluster can be used at 127.0.0.1:1 .*; start one by `ray start"):
        RayCluster("127.0.0.1:1")
    with pytest.raises(ClusterError, match="address of a client"):
        RayCluster("ray://127.0.0.1:10001")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PackageError, match=r"--ray needs ray, which is not installed: .* pip install 'dgviz\[ray\]'"):
        RayCluster("local")
