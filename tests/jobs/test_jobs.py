"""The warm worker and the detached jobs: real processes, killed for real."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from filelock import FileLock

from dgviz.files import read_json, write_json
from dgviz.jobs import (
    JobError,
    JobReporter,
    JobRunningError,
    Progress,
    RemoteError,
    Superseded,
    Worker,
    WorkerDied,
    list_jobs,
    start_job,
)
from dgviz.jobs.process import describe_process, is_alive
from dgviz.jobs.supervise import wait_for_end
from tests.jobs.worker_functions import Refused

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds; only ends a test that would hang


def wait_until(condition, what):
    """Wait for something that another process or thread does."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT} s for {what}"
        time.sleep(0.02)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def shared_worker():
    with Worker("tests.jobs.worker_functions", threads=1) as worker:
        yield worker


@pytest.fixture
def worker():
    with Worker("tests.jobs.worker_functions", threads=1) as worker:
        yield worker


# --- Worker: calls ------------------------------------------------------------------------------------------------


def test_calls_share_one_process_that_keeps_its_state(shared_worker):
    assert shared_worker.call("remember", value="a") == ["a"]
    assert shared_worker.call("remember", value="b") == ["a", "b"]
    assert shared_worker.call("pid") == shared_worker.pid != os.getpid()


def test_large_arrays_travel_both_ways(shared_worker):
    array = np.arange(3_000_000, dtype=np.float64)
    np.testing.assert_array_equal(shared_worker.call("add_one", array=array), array + 1)


def test_an_argument_may_have_any_name(shared_worker):
    with pytest.raises(TypeError, match="function"):
        shared_worker.call("echo", function=1)


def test_thread_counts_are_set_in_the_worker_only(shared_worker, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert shared_worker.call("environment", name="OMP_NUM_THREADS") == "1"
    assert shared_worker.call("environment", name="MKL_NUM_THREADS") == "1"
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_nice_is_added():
    with Worker("tests.jobs.worker_functions", nice=5) as worker:
        assert worker.call("nice") == os.nice(0) + 5


def test_zero_threads_are_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        Worker("tests.jobs.worker_functions", threads=0)


def test_one_request_at_a_time_from_many_threads(shared_worker):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda value: shared_worker.call("echo", value=value), range(64)))
    assert answers == list(range(64))
    assert not shared_worker.busy


# --- Worker: failures ---------------------------------------------------------------------------------------------


def test_an_exception_comes_back_as_its_class_and_the_worker_lives(shared_worker):
    pid = shared_worker.call("pid")
    with pytest.raises(Refused, match="rank 3") as caught:
        shared_worker.call("refuse", message="weight 'a' has rank 3")
    assert str(caught.value) == "weight 'a' has rank 3"
    assert "in refuse" in "".join(caught.value.__notes__)
    assert shared_worker.call("pid") == pid


def test_an_exception_that_cannot_be_rebuilt_comes_back_as_remote_error(shared_worker):
    with pytest.raises(RemoteError, match="Unpicklable: this and that"):
        shared_worker.call("raise_unpicklable")


def test_an_exception_of_a_module_not_loaded_here_does_not_load_it(shared_worker):
    with pytest.raises(RemoteError, match="ForeignError: far away"):
        shared_worker.call("raise_foreign")
    assert "tests.jobs.worker_foreign" not in sys.modules


def test_exit_in_a_function_ends_neither_process(shared_worker):
    pid = shared_worker.call("pid")
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        shared_worker.call("raise_exit")
    assert shared_worker.call("pid") == pid


def test_a_result_that_cannot_be_pickled_is_named(shared_worker):
    with pytest.raises(TypeError, match="the result of return_function is a function that cannot be pickled"):
        shared_worker.call("return_function")
    assert shared_worker.call("echo", value=1) == 1


def test_an_unknown_function_is_named(shared_worker):
    with pytest.raises(AttributeError, match="no_such_function"):
        shared_worker.call("no_such_function")


def test_a_module_that_cannot_be_imported_is_named():
    with Worker("no_such_module_anywhere") as worker, pytest.raises(ModuleNotFoundError, match="no_such_module"):
        worker.call("anything")


def test_printing_does_not_disturb_the_answers(tmp_path):
    log = tmp_path / "logs" / "worker.log"
    with Worker("tests.jobs.worker_functions", log=log) as worker:
        assert worker.call("print_everywhere") == "printed"
        assert worker.call("echo", value=7) == 7
    assert {"to stdout", "to stderr", "from a child"} <= set(log.read_text().splitlines())


def test_death_during_a_call_is_told_and_the_next_call_restarts(worker):
    first = worker.call("pid")
    with pytest.raises(WorkerDied, match=r"exit code 9 during die; .*last thing it printed: about to go$"):
        worker.call("die", code=9)
    assert worker.call("pid") != first


def test_a_kill_during_a_call_is_told(worker, tmp_path):
    def kill():
        wait_until((tmp_path / "started").exists, "the call to start")
        os.kill(worker.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerDied, match="was ended by SIGKILL .*memory.* during touch_and_wait"):
        worker.call("touch_and_wait", started=tmp_path / "started", until=tmp_path / "never")
    killer.join()
    assert worker.call("echo", value=1) == 1


def test_a_crash_in_native_code_is_told(worker):
    with pytest.raises(WorkerDied, match="SIGSEGV"):
        worker.call("crash")


def test_a_worker_killed_while_idle_is_replaced(worker):
    first = worker.call("pid")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: worker.pid is None, "the worker to end")
    assert worker.call("pid") != first


def test_stop_ends_a_running_call(worker, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.call, "touch_and_wait", started=tmp_path / "started", until=tmp_path / "never")
        wait_until((tmp_path / "started").exists, "the call to start")
        pid = worker.pid
        worker.stop()
        with pytest.raises(WorkerDied):
            running.result(LIMIT)
    assert gone(pid)
    assert worker.pid is None


# --- Worker: waiting ----------------------------------------------------------------------------------------------


@pytest.fixture
def occupied(worker, tmp_path):
    """A worker with a call under way, the file that ends it, and a pool to wait in."""
    release = tmp_path / "release"
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(
            worker.call, "touch_and_wait", started=tmp_path / "started", until=release, group="layer"
        )
        wait_until((tmp_path / "started").exists, "the call to start")
        try:
            yield worker, release, pool
        finally:
            release.touch()
            assert running.result(LIMIT) == "waited"  # whatever else happened, the call under way was left alone


def queue_length(worker):
    return len(worker._queue)


def test_a_newer_call_of_a_group_supersedes_the_waiting_one(occupied):
    worker, release, pool = occupied
    older = pool.submit(worker.call, "remember", group="layer", value="older")
    wait_until(lambda: queue_length(worker) == 2, "the older call to wait")
    newer = pool.submit(worker.call, "remember", group="layer", value="newer")
    with pytest.raises(Superseded, match="remember"):
        older.result(LIMIT)
    release.touch()
    assert newer.result(LIMIT) == ["newer"]


def test_other_groups_and_calls_without_one_keep_their_place(occupied):
    worker, release, pool = occupied
    first = pool.submit(worker.call, "remember", value="no group")
    wait_until(lambda: queue_length(worker) == 2, "the first call to wait")
    second = pool.submit(worker.call, "remember", group="export", value="export")
    wait_until(lambda: queue_length(worker) == 3, "the second call to wait")
    third = pool.submit(worker.call, "remember", group="layer", value="layer")
    wait_until(lambda: queue_length(worker) == 4, "the third call to wait")
    release.touch()
    assert first.result(LIMIT) == ["no group"]
    assert second.result(LIMIT) == ["no group", "export"]
    assert third.result(LIMIT) == ["no group", "export", "layer"]


def test_a_time_out_while_waiting_harms_nobody(occupied):
    worker, release, _ = occupied
    pid = worker.pid
    with pytest.raises(TimeoutError, match="still busy with another call"):
        worker.call("echo", timeout=0.05, value=1)
    release.touch()
    assert worker.call("pid") == pid


@pytest.mark.slow
def test_a_time_out_while_computing_ends_the_process(worker, tmp_path):
    pid = worker.call("pid")
    with pytest.raises(TimeoutError, match="touch_and_wait did not finish in 0.2 s"):
        worker.call("touch_and_wait", timeout=0.2, started=tmp_path / "started", until=tmp_path / "never")
    assert gone(pid)
    assert worker.call("pid") != pid


# --- Worker: its place among processes ----------------------------------------------------------------------------

SCRIPT = """
import sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
with Path({marks!r}).open("a") as marks:
    marks.write("main script ran\\n")
from dgviz.jobs import Worker
worker = Worker("tests.jobs.worker_functions")
arguments = dict(started={started!r}, until="/nowhere/never")
threading.Thread(target=worker.call, args=("touch_and_wait",), kwargs=arguments, daemon=True).start()
while not Path({started!r}).exists():
    time.sleep(0.01)
print(worker.pid, flush=True)
sys.stdin.read()
"""


def test_the_main_script_is_not_run_again_and_no_orphan_stays(tmp_path):
    """The script has no `__main__` guard, as a Streamlit script has none; it is then killed during a call."""
    script, marks, started = (tmp_path / name for name in ("script.py", "marks", "started"))
    names = {"tests": str(ROOT / "tests"), "marks": str(marks), "started": str(started)}
    script.write_text(SCRIPT.format(**names))
    parent = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    wait_until(lambda: gone(pid), "the worker to follow its parent")
    assert marks.read_text() == "main script ran\n"


def test_ctrl_c_leaves_the_worker_to_its_parent(worker):
    pid = worker.call("pid")
    os.kill(pid, signal.SIGINT)
    assert worker.call("pid") == pid


# --- Detached jobs ------------------------------------------------------------------------------------------------

LISTENING = """
import sys, time
from dgviz.jobs import JobReporter
reporter = JobReporter.from_environment()
print("half way", file=sys.stderr, flush=True)
while not reporter.cancelled():
    reporter.progress(50, 100, "layers.0.weight", unit="B")
    time.sleep(0.02)
reporter.finish({"written": 1}, "cancelled")
"""


def python(code):
    return [sys.executable, "-c", code]


def ended(job):
    wait_until(lambda: job.state != "running", f"the end of {job.title}")
    return job


@pytest.fixture
def start(tmp_path):
    """start_job in a root of the test's own; whatever still runs at the end is killed."""
    root = tmp_path / "jobs"
    yield lambda command, title="a job", **kwargs: start_job(command, root, title, **kwargs)
    for job in list_jobs(root):
        job.cancel(force=True)
        ended(job)


def test_no_jobs_yet(tmp_path):
    assert list_jobs(tmp_path / "nothing") == []


def test_a_job_that_reports(start, tmp_path):
    code = (
        "from dgviz.jobs import JobReporter; r = JobReporter.from_environment();"
        "r.progress(3, 3, 'last'); r.finish({'tensors': 3}); print('{\"json\": true}')"
    )
    job = ended(start(python(code), title="Repair"))
    assert (job.state, job.result, job.error) == ("done", {"tensors": 3}, None)
    assert job.progress().fraction == 1
    assert job.created <= job.ended <= time.time()
    wait_until(lambda: job.exit_code == 0, "the supervisor to note the exit code")
    assert (job.directory / "output.txt").read_text() == '{"json": true}\n'
    assert list_jobs(tmp_path / "jobs") == [job]  # read back from disk, equal field by field


def test_a_job_that_reports_nothing_is_judged_by_its_exit_code(start):
    assert ended(start(python("pass"))).state == "done"


def test_a_job_gives_way_to_pages(start):
    code = (
        "import os; from pathlib import Path; from dgviz.jobs import JobReporter;"
        "group = Path('/proc/self/autogroup');"
        "found = group.read_text() if group.exists() else '';"
        "JobReporter.from_environment().finish({'nice': os.nice(0), 'group': found})"
    )
    result = ended(start(python(code))).result
    assert result["nice"] == min(19, os.nice(0) + 5)
    assert result["group"] == "" or result["group"].endswith(" nice 5\n")


def test_the_last_line_on_stderr_is_the_error(start):
    code = (
        "import sys; print('noise');"
        "sys.stderr.write('reading\\r  50%\\rError: shard 2 is missing\\n\\n'); sys.exit(2)"
    )
    job = ended(start(python(code)))
    assert (job.state, job.exit_code, job.error) == ("failed", 2, "Error: shard 2 is missing")
    assert job.log_tail() == "Error: shard 2 is missing"  # a progress bar's latest state, not all of them


def test_a_reported_error_is_preferred(start):
    code = (
        "import sys; from dgviz.jobs import JobReporter;"
        "JobReporter.from_environment().finish({'error': 'disk full'}, 'failed'); sys.exit('noise')"
    )
    job = ended(start(python(code)))
    assert (job.state, job.error) == ("failed", "disk full")


def test_a_program_that_does_not_exist_fails_with_its_name(start):
    job = ended(start(["/no/such/program"]))
    assert job.state == "failed"
    assert "/no/such/program" in job.error


def test_progress_log_and_cancel(start):
    job = start(python(LISTENING))
    wait_until(job.progress, "progress")
    assert job.state == "running"
    progress = job.progress()
    assert (progress.fraction, progress.message, progress.extra) == (0.5, "layers.0.weight", {"unit": "B"})
    assert job.log_tail() == "half way"
    job.cancel()
    assert ended(job).state == "cancelled"
    assert job.result == {"written": 1}


def test_a_job_that_does_not_listen_is_ended_with_all_its_children(start):
    code = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, file=sys.stderr, flush=True); time.sleep(600)"
    )
    job = start(python(code))
    wait_until(job.log_tail, "the child's number")
    child = int(job.log_tail())
    job.cancel(force=True)
    assert ended(job).state == "cancelled"
    wait_until(lambda: gone(child), "the child to end")


def processes(job):
    wait_until((job.directory / "command.json").exists, "the command to start")
    return [read_json(job.directory / name)["pid"] for name in ("supervisor.json", "command.json")]


def test_a_killed_command_has_died(start):
    job = start(python("import time; time.sleep(600)"))
    os.kill(processes(job)[1], signal.SIGKILL)
    assert ended(job).state == "died"
    assert "SIGKILL" in job.error


def test_a_job_whose_supervisor_is_killed_runs_on_while_its_command_does(start):
    job = start(python(LISTENING))
    supervisor, command = processes(job)
    wait_until(job.log_tail, "its first word")
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor), "the supervisor to end")
    assert job.state == "running"
    os.kill(command, signal.SIGKILL)
    assert ended(job).state == "died"
    assert "left no exit code" in job.error
    assert "half way" in job.error


def test_a_job_outlives_the_process_that_started_it(start, tmp_path):
    code = (
        "import sys; from pathlib import Path; from dgviz.jobs import start_job;"
        f"print(start_job([sys.executable, '-c', {LISTENING!r}], Path({str(tmp_path / 'jobs')!r}), 'long').id)"
    )
    run = subprocess.run(python(code), cwd=ROOT, capture_output=True, text=True, check=True)
    (job,) = list_jobs(tmp_path / "jobs")
    assert job.id == run.stdout.strip()
    wait_until(job.progress, "progress")
    assert job.state == "running"
    job.cancel()
    assert ended(job).state == "cancelled"


def test_a_number_used_again_by_another_process_is_not_the_job(start):
    job = start(python("import time; time.sleep(600)"))
    supervisor, command = processes(job)
    os.killpg(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor) and gone(command), "both to end")
    mine = describe_process(os.getpid())
    assert is_alive(**mine)
    for name in ("supervisor.json", "command.json"):
        write_json(job.directory / name, {**mine, "started": mine["started"] - 3600})
    assert job.state == "died"


def test_a_zombie_is_dead():
    child = subprocess.Popen(python("pass"))
    process = describe_process(child.pid)
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "the child to end")
    assert not is_alive(**process)
    child.wait()


def test_two_jobs_cannot_write_the_same_output(start, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(tmp_path)
    job = start(python(LISTENING), title="first", lock=out)
    for other in (out, out / "inside", tmp_path, tmp_path / "link" / "out"):
        with pytest.raises(JobRunningError, match=r"'first' is writing .*out"):
            start(python("pass"), lock=other)
    assert ended(start(python("pass"), lock=tmp_path / "out2")).state == "done"
    job.cancel()
    ended(job)
    assert ended(start(python("pass"), lock=out)).state == "done"


def test_starts_at_the_same_moment_wait_for_each_other(start, tmp_path):
    root = tmp_path / "jobs"
    root.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(root / ".lock"):  # another start is between looking and being seen
            waiting = pool.submit(start, python(LISTENING))
            time.sleep(0.3)
            assert list_jobs(root) == []
        job = waiting.result(LIMIT)
    assert list_jobs(root) == [job]


def test_forget(start, tmp_path):
    job = start(python(LISTENING))
    with pytest.raises(JobError, match="still running"):
        job.forget()
    job.cancel()
    ended(job).forget()
    assert list_jobs(tmp_path / "jobs") == []
    assert not job.directory.exists()


def test_jobs_are_listed_newest_first(start, tmp_path):
    started = [start(python("pass"), title=str(index)) for index in range(3)]
    assert [job.title for job in list_jobs(tmp_path / "jobs")] == ["2", "1", "0"]
    assert len({job.id for job in started}) == 3


def test_relative_roots_and_the_working_directory(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os; print(os.getcwd())"
    job = ended(start_job(python(code), Path("jobs"), "relative", cwd=ROOT))
    assert (job.directory / "output.txt").read_text().strip() == str(ROOT)


DAMAGE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"3",
    b"{}",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"state": 3, "code": "x", "pid": "a"}',
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda data: repr(data[:12]))
@pytest.mark.parametrize("name", ["result.json", "exit.json", "progress.json", "supervisor.json", "command.json"])
def test_a_damaged_file_costs_no_more_than_itself(tmp_path, name, damage):
    root = tmp_path / "jobs"
    job = finished_job(root / "20260101-000000-abcdef")
    (job / name).write_bytes(damage)
    (found,) = list_jobs(root)
    assert found.title == "Repair" and found.state in ("done", "died")
    assert found.state == "done" or name == "exit.json"
    found.error, found.ended, found.result, found.progress()
    readable = damage in (b"{}", DAMAGE[-1])
    assert bool(found.problem) is not readable and (readable or f"{name} " in found.problem)
    found.cancel(force=True)
    found.forget()
    assert list_jobs(root) == []


def finished_job(directory):
    """The files of a job that has ended well."""
    spec = {"title": "Repair", "command": ["true"], "cwd": "/", "lock": None, "created": time.time() - 100}
    directory.mkdir(parents=True)
    write_json(directory / "spec.json", spec)
    write_json(directory / "exit.json", {"code": 0, "ended": time.time()})
    JobReporter(directory).progress(1, 2, "half")
    for name in ("supervisor.json", "command.json"):
        write_json(directory / name, describe_process(os.getpid()) | {"pid": 2**22 - 1})
    return directory


@pytest.mark.parametrize("damage", [*DAMAGE, b'{"title": 1, "command": [], "cwd": "", "lock": null, "created": 0}'])
def test_a_damaged_spec_is_a_job_that_says_so(tmp_path, damage):
    root = tmp_path / "jobs"
    finished_job(root / "first")
    (finished_job(root / "second") / "spec.json").write_bytes(damage)
    sound, damaged = sorted(list_jobs(root), key=lambda job: job.state, reverse=True)
    assert (sound.state, damaged.state) == ("done", "damaged")
    assert damaged.title == "second" and "second/spec.json" in damaged.error == damaged.problem
    damaged.cancel(force=True)
    damaged.forget()
    assert list_jobs(root) == [sound]


def test_a_job_of_another_machine_runs_while_it_gives_signs_of_life(tmp_path):
    directory = finished_job(tmp_path / "jobs" / "far")
    (directory / "exit.json").unlink()
    for machine in ({"host": "elsewhere"}, {"boot": "another"}):  # the other one, or this one before its restart
        for name in ("supervisor.json", "command.json"):
            write_json(directory / name, describe_process(os.getpid()) | machine)
        (directory / "alive").touch()
        (job,) = list_jobs(tmp_path / "jobs")
        assert job.state == "running"
        with pytest.raises(JobError, match="still running"):
            job.forget()
        os.utime(directory / "alive", (time.time() - 600, time.time() - 600))
        assert job.state == "died" and "left no exit code" in job.error
        assert sorted(path.name for path in directory.glob(".*")) == []


def test_a_clock_that_is_set_kills_no_job(start, monkeypatch):
    job = start(python(LISTENING))
    processes(job)
    now = time.time
    for hours in (-5, 5):
        # What psutil says of a process, and this process's clock, both move when the clock is set.
        monkeypatch.setattr(time, "time", lambda hours=hours: now() + 3600 * hours)
        monkeypatch.setattr(psutil, "boot_time", lambda hours=hours: now() + 3600 * hours)
        monkeypatch.setattr(psutil.Process, "create_time", lambda self, hours=hours: now() + 3600 * hours)
        assert job.state == "running"


def test_a_job_of_an_older_version_is_still_recognised(start):
    job = start(python(LISTENING))
    for name, pid in zip(("supervisor.json", "command.json"), processes(job), strict=True):
        write_json(job.directory / name, {"pid": pid, "started": psutil.Process(pid).create_time()})
    assert job.state == "running"
    job.cancel(force=True)
    assert ended(job).state == "cancelled"


def test_the_supervisor_gives_signs_of_life(start, monkeypatch):
    job = start(python(LISTENING))
    assert (job.directory / "alive").exists()
    process = subprocess.Popen(python("import time; time.sleep(600)"))
    monkeypatch.setattr("dgviz.jobs.supervise.HEARTBEAT", 0.01)
    os.utime(job.directory / "alive", (0, 0))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_end, process, job.directory / "alive")
        wait_until(lambda: (job.directory / "alive").stat().st_mtime > 0, "a sign of life")
        process.kill()
        assert waiting.result(LIMIT) == -signal.SIGKILL


def test_names_that_act_on_a_terminal_are_escaped_in_progress_and_errors(start, tmp_path):
    reporter = JobReporter(tmp_path)
    reporter.progress(1, 2, "a\x1b[2Jb\n\udc80")
    assert read_json(tmp_path / "progress.json")["message"] == "a\\x1b[2Jb\\n\\udc80"
    job = ended(start(python("import sys; sys.exit('bad \\x1b[31mred\\x9b')")))
    assert job.error == "bad \\x1b[31mred\\x9b"


# --- Progress -----------------------------------------------------------------------------------------------------


def progress(done, total, history, updated=None):
    return Progress(done, total, "", history[-1][0] if updated is None else updated, tuple(history), {})


def test_time_left_at_a_steady_speed():
    steady = progress(40, 100, [(t, 4 * t) for t in range(11)])
    assert steady.seconds_left(now=10) == pytest.approx(15)
    assert steady.seconds_left(now=13) == pytest.approx(12)  # silent for 3 s since
    assert steady.seconds_left(now=1000) == 0


def test_time_left_follows_the_later_half():
    history = [(0, 0), (100, 1), *[(100 + t, 1 + t) for t in range(1, 101)]]
    assert progress(101, 201, history).seconds_left(now=200) == pytest.approx(100)


def test_time_left_of_a_resumed_run_counts_only_what_it_did_itself():
    assert progress(600, 1000, [(0, 500), (10, 600)]).seconds_left(now=10) == pytest.approx(40)


def test_time_left_is_unknown_without_movement():
    assert progress(0, 10, [(0, 0)]).seconds_left(now=5) is None
    assert progress(0, 10, [(0, 0), (5, 0)]).seconds_left(now=5) is None
    assert progress(10, 10, [(0, 0), (5, 10)]).seconds_left(now=5) == 0


def test_the_fraction_is_never_outside_its_range():
    assert [progress(done, total, [(0, done)]).fraction for done, total in ((5, 0), (20, 10), (1, 4))] == [0, 1, 0.25]


def test_reports_are_thinned_and_the_last_one_kept(tmp_path):
    reporter = JobReporter(tmp_path)
    for step in range(300):
        reporter.progress(step, 300, f"tensor {step}")
    found = read_json(tmp_path / "progress.json")
    assert len(found["history"]) <= 64
    assert (found["history"][0][1], found["history"][-1][1], found["message"]) == (0, 299, "tensor 299")


def test_a_burst_is_written_once_but_new_messages_and_the_end_always(tmp_path, monkeypatch):
    monkeypatch.setattr("dgviz.jobs.reporter.time", SimpleNamespace(time=lambda: 1000.0))
    reporter = JobReporter(tmp_path)
    seen = []
    for done, message in ((0, "copying"), (1, "copying"), (2, "checking"), (3, "checking"), (10, "checking")):
        reporter.progress(done, 10, message)
        seen.append(read_json(tmp_path / "progress.json")["done"])
    assert seen == [0, 0, 2, 2, 10]


def test_a_command_run_by_hand_reports_to_nobody(monkeypatch, tmp_path):
    monkeypatch.delenv("DGVIZ_JOB_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    reporter = JobReporter.from_environment()
    reporter.progress(1, 2, "tensor")
    reporter.finish({})
    assert not reporter.cancelled()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'finished'"):
        JobReporter(tmp_path).finish({}, "finished")


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"path": Path("a") / "b"})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert read_json(path) == {"path": "a/b"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]
