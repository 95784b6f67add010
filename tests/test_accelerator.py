"""The pretend accelerator itself: it says what a device says, refuses what one refuses, and counts."""

import pytest
import torch

from tests.accelerator import pretend_accelerator

ROWS = torch.arange(6.0).reshape(2, 3)


def test_what_is_on_it_says_so_and_computes_as_the_cpu_does():
    with pretend_accelerator() as gpu:
        x = ROWS.to("cuda:0")
        assert x.is_cuda and x.T.device == torch.device("cuda:0") and x.T.stride() == (1, 3)
        y = torch.zeros(2, 3, device=x.device)
        y += x
        y[0] = 7
        assert (x @ y.T).tolist() == (ROWS @ torch.tensor([[7.0, 7, 7], [3, 4, 5]]).T).tolist()
        assert gpu.bytes_in == 24 and gpu.launches["mm"] == 1 and gpu.live == 48
    with pytest.raises(RuntimeError, match="no longer there"):
        x + 1


def test_devices_do_not_mix():
    with pretend_accelerator():
        with pytest.raises(RuntimeError, match="on the same device, but add found"):
            ROWS.to("cuda:0") + ROWS
        with pytest.raises(TypeError, match="numpy"):
            ROWS.to("cuda:0").numpy()


@pytest.mark.parametrize(
    "look",
    [float, bool, lambda x: x.cpu(), lambda x: x.tolist(), lambda x: x.nonzero(), lambda x: x[x > 0]],
)
def test_whoever_looks_waits(look):
    with pretend_accelerator() as gpu:
        x = ROWS[:1, 1:2].pin_memory().to("cuda:0", non_blocking=True)
        assert not gpu.waits
        look(x)
        assert sum(gpu.waits.values()) == 1


def test_a_copy_that_nobody_waited_for_has_not_arrived():
    with pretend_accelerator():
        x = ROWS.to("cuda:0")
        there = x.to("cpu", non_blocking=True)
        assert there.isnan().all()
        float(x.sum())
        assert torch.equal(there, ROWS)


def test_memory_ends():
    with pretend_accelerator(capacity=100) as gpu:
        x = ROWS.to("cuda:0")
        del x
        rows = [torch.zeros(12, device="cuda:0") for _ in range(2)]
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(12, device="cuda:0")
        assert len(rows) == 2 and gpu.live == 96
