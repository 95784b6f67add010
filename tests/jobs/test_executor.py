"""Tasks carried out here, in other processes and in several sets of them: the same results, whoever does it."""

import os
import time
from contextlib import closing
from functools import partial

import pytest

from dgviz.jobs import WorkerDied
from dgviz.jobs.executor import InProcess, InThread, NamedTask, Processes, Together
from tests.jobs import executor_tasks as tasks

KINDS = {
    "in process": InProcess,
    "in a thread": partial(InThread, "cpu"),
    "two processes": partial(Processes, 2),
    "this and another": partial(Processes, 2, joined=True),
    "together": lambda: Together([Processes(1), Processes(1)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_executor_carries_out_the_same_tasks(kind):
    add, power = tasks.Add(10), NamedTask("tests.jobs.executor_tasks", "power")
    with closing(KINDS[kind]()) as executor:
        sums = [executor.submit(add, number) for number in range(6)]
        powers = [executor.submit(power, base=2, exponent=number) for number in range(6)]
        failed = executor.submit(tasks.fail, "on purpose")
        assert [future.result(60) for future in sums] == [("cpu", 10 + number) for number in range(6)]
        assert [future.result(60) for future in powers] == [("cpu", 2**number) for number in range(6)]
        with pytest.raises(ValueError, match="on purpose"):
            failed.result(60)


def test_a_task_travels_once_to_a_process_and_its_arguments_every_time():
    with closing(Processes(1)) as executor:
        task = tasks.Counted()
        assert [executor.submit(task).result(60)[1] for _ in range(3)] == [1, 2, 3]


def test_this_process_takes_its_part():
    with closing(Processes(2, joined=True)) as executor:
        assert os.getpid() in {executor.submit(tasks.process_of).result(60) for _ in range(2)}


def test_a_process_that_dies_is_told_and_another_takes_its_place():
    with closing(Processes(1)) as executor:
        add = tasks.Add(1)
        assert executor.submit(add, 1).result(60) == ("cpu", 2)
        with pytest.raises(WorkerDied):
            executor.submit(tasks.die).result(60)
        assert executor.submit(add, 2).result(60) == ("cpu", 3)


def test_closing_ends_what_runs(tmp_path):
    executor = Processes(2)
    futures = [executor.submit(tasks.wait_for_ever, tmp_path / str(number)) for number in range(3)]
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    executor.close()
    assert all(future.done() for future in futures) and len(list(tmp_path.iterdir())) == 2
