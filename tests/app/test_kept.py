"""What the server keeps: bounded in bytes, made once for all who ask, told apart by contents."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from dgviz.app import kept as kept_module
from dgviz.app.kept import Keeper, identity, kept, weigh
from dgviz.checkpoint import open_pair
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.weight import weights_of
from tests.checkpoints import write_pair


def test_bytes_are_bounded_and_what_was_used_longest_ago_goes():
    keeper = Keeper(limit=10_500)
    for number in range(8):
        keeper.answer(number, lambda: np.zeros(1000, np.uint8))
        keeper.answer(0, lambda: pytest.fail("0 was used last"))
        assert keeper.nbytes <= keeper.limit
    made = []
    for number in (0, 7, 6, 1, 2):
        keeper.answer(number, lambda number=number: made.append(number))
    assert made[-2:] == [1, 2] and 0 not in made


def test_an_answer_that_grows_is_weighed_again():
    class Growing:
        kept_bytes = 0

    keeper, growing, later = Keeper(limit=5000), Growing(), Future()
    keeper.answer("growing", lambda: growing)
    keeper.answer("later", lambda: later)
    assert keeper.nbytes < 3000
    growing.kept_bytes = 3000
    later.set_result(np.zeros(4000, np.uint8))
    assert keeper.nbytes > 7000
    keeper.answer("new", lambda: 1)
    assert keeper.nbytes <= 5000


def test_the_newest_is_kept_however_large():
    keeper = Keeper(limit=10)
    assert keeper.answer("large", lambda: b"x" * 1000) is keeper.answer("large", lambda: None)


def test_many_ask_and_one_makes_it():
    keeper, made, ready = Keeper(), [], threading.Barrier(4)

    def ask():
        ready.wait()
        return keeper.answer("key", lambda: made.append(1) or len(made))

    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(ask) for _ in range(4)]] == [1] * 4
    assert made == [1]


def test_a_failure_is_not_kept(monkeypatch):
    monkeypatch.setattr(kept_module, "KEEPER", Keeper())
    asked = []

    @kept
    def half(number, _ignored=None):
        asked.append(number)
        if len(asked) == 1:
            raise ValueError("first")
        return number / 2

    with pytest.raises(ValueError, match="first"):
        half(4)
    assert [half(4, 1), half(4, 2), half(6)] == [2, 2, 3] and asked == [4, 4, 6]
    half.clear(4)
    assert half(4) == 2 and asked == [4, 4, 6, 4]


def test_questions_are_told_apart_by_contents(tmp_path):
    pair, same = (open_pair(*write_pair(tmp_path)) for _ in range(2))
    weights, others = weights_of(pair), weights_of(same)
    assert len({identity(weight) for weight in weights}) == len(weights)
    assert list(map(identity, weights)) == list(map(identity, others))
    plans = RepairPlan(), RepairPlan(params={"scale": 1.5}), RepairPlan(overrides=("lm_head: keep=tuned",))
    assert len({identity(plan) for plan in plans}) == 3
    assert weigh(pair) > 5000 and weigh(np.zeros(10**6)) > 8 * 10**6


def test_a_long_collection_is_weighed_by_some_of_its_items():
    class Counted:
        looked = 0

        @property
        def kept_bytes(self):
            Counted.looked += 1
            return 1000

    weights = {size: weigh([Counted() for _ in range(size)]) for size in (100, 10_000)}
    assert weights[10_000] == pytest.approx(100 * weights[100], rel=0.02)
    assert Counted.looked < 1000
