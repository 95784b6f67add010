"""Who is worked on when: memory and threads are never exceeded, nobody starves, nothing idles."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgviz.checkpoint import PairedTensor, TensorInfo, open_pair
from dgviz.spectra.schedule import Admission, Task, count_cores, estimate_bytes, memory_budget, plan_tasks
from dgviz.spectra.weight import Weight
from tests.checkpoints import write_pair

GIB = 2**30


def task(memory: int) -> Task:
    info = TensorInfo("w", (4, 4), "float32", Path("w"), 0, 64)
    return Task(Weight(PairedTensor("w", info, info, "repair", "")), 128, memory, 1.0)


def begin_all(admission: Admission, waiting: list[Task]) -> list[Task]:
    """Let begin whoever may, taking them off the list."""
    begun = []
    while (chosen := admission.admit(waiting)) is not None:
        waiting.remove(chosen)
        begun.append(chosen)
    return begun


def test_the_largest_begins_and_small_ones_fill_in():
    large, middle, small = task(70), task(60), task(20)
    admission, waiting = Admission(100, 8), [large, middle, small]
    assert begin_all(admission, waiting) == [large, small]
    admission.release(large)
    assert begin_all(admission, waiting) == [middle]


def test_small_ones_do_not_starve_a_large_one():
    running, large, small = task(50), task(90), [task(20) for _ in range(50)]
    admission = Admission(100, 8)
    assert admission.admit([running], unread=51) is running
    waiting = [large, *small]
    # 30 more would fit, but not beside the large one once its turn comes: 90 + 20 > 100.
    assert begin_all(admission, waiting) == []
    admission.release(running)
    assert begin_all(admission, waiting) == [large]


def test_small_ones_go_beside_a_large_one_that_waits_as_far_as_they_leave_it_room():
    running, large, small = task(50), task(60), [task(20) for _ in range(5)]
    admission = Admission(100, 8)
    admission.admit([running], unread=6)
    waiting = [large, *small]
    assert begin_all(admission, waiting) == small[:2]
    admission.release(running)
    assert begin_all(admission, waiting) == [large]


def test_a_stack_shares_the_threads_of_its_first_matrix_and_its_memory_counts():
    first, *others = (task(30) for _ in range(4))
    admission = Admission(100, 2)
    assert admission.admit([first, *others]) is first
    assert [admission.join(other) for other in others] == [True, True, False]
    assert admission.admit([task(5)], unread=5) is not None  # a thread and ten bytes are left
    assert admission.admit([task(5)], unread=5) is None  # no thread is
    admission.release(others[0])
    assert admission.join(others[2])


def test_what_is_larger_than_the_budget_runs_alone_with_all_threads():
    giant, small = task(500), task(1)
    admission, waiting = Admission(100, 8), [giant, small]
    assert begin_all(admission, waiting) == [giant]
    assert admission.threads_of(giant) == 8
    admission.release(giant)
    assert begin_all(admission, waiting) == [small]


def test_threads_are_shared_as_memory_is():
    for memory, threads in ((1, 1), (12, 1), (25, 2), (50, 4), (99, 7), (100, 8)):
        admission, one = Admission(100, 8), task(memory)
        admission.admit([one], unread=100)
        assert admission.threads_of(one) == threads
    assert len(begin_all(Admission(100, 8), [task(50) for _ in range(8)])) == 2
    assert len(begin_all(Admission(100, 3), [task(1) for _ in range(8)])) == 3
    assert len(begin_all(Admission(0, 4), [task(1), task(1)])) == 1


def test_the_last_ones_share_all_threads():
    admission, last = Admission(100, 16), [task(1) for _ in range(3)]
    assert begin_all(admission, list(last)) == last
    assert [admission.threads_of(one) for one in last] == [5, 5, 6]
    # One that waits while others are still to be read leaves them their threads.
    admission = Admission(100, 16)
    admission.admit(last[:1], unread=15)
    assert admission.threads_of(last[0]) == 1


@given(st.lists(st.integers(1, 130), min_size=1, max_size=40), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_mix_ends_and_never_takes_too_much(sizes, threads, random):
    admission = Admission(100, threads)
    waiting = [task(size) for size in sorted(sizes, reverse=True)]
    running: list[Task] = []
    before_head: set[Task] = set()  # who ran when the head became the head: it waits for nobody else
    head = waiting[0]
    done = 0
    while waiting or running:
        while (chosen := admission.admit(waiting)) is not None:
            waiting.remove(chosen)
            running.append(chosen)
            if chosen is head:
                head = waiting[0] if waiting else None
                before_head = set(running)
        assert running, "something waits and nothing runs"
        assert sum(one.memory for one in running) <= 100 or len(running) == 1
        assert sum(map(admission.threads_of, running)) <= threads
        # The head still waits, so one of those who ran before it does.
        assert head is None or head not in waiting or before_head & set(running)
        ended = running.pop(random.randrange(len(running)))
        admission.release(ended)
        done += 1
    assert done == len(sizes)


def test_every_matrix_is_planned_the_largest_first(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    tasks = plan_tasks(pair)
    assert [one.memory for one in tasks] == sorted((one.memory for one in tasks), reverse=True)
    found = {(one.weight.tensor.name, one.weight.index) for one in tasks}
    stack = "model.layers.2.mlp.experts.gate_up_proj"
    assert found == {(p.name, None) for p in pair.repairable if p.name != stack} | {(stack, i) for i in range(4)}
    expert = next(one for one in tasks if one.weight.index == 2)
    assert expert.weight.shape == (48, 32) and expert.stored == 2 * 48 * 32 * 4
    assert all(one.work > 0 for one in tasks)


@pytest.mark.parametrize("stored", [2, 4])
def test_a_large_embedding_is_admitted_in_24_gib(stored):
    """151936 x 4096: the delta alone is 2.3 GiB in float32."""
    needed = estimate_bytes((151936, 4096), stored, double=False)
    assert 2.4 * GIB < needed < 0.8 * 24 * GIB
    admission = Admission(int(0.8 * 24 * GIB) - 2 * 300 * 2**20, 2)
    assert admission.admit([task(needed)]) is not None


def test_estimates_grow_with_what_they_are_made_of():
    small = estimate_bytes((8192, 3072), 2, double=False)
    assert estimate_bytes((8192, 3072), 4, double=False) >= small
    assert estimate_bytes((8192, 3072), 8, double=True) >= small + 4 * 8192 * 3072
    assert estimate_bytes((3072, 8192), 2, double=False) == small


def test_this_machine():
    assert count_cores() >= 1
    assert 0 <= memory_budget(10**6) <= memory_budget(1) < 2**50
