"""What a GPU is asked to do for a scan: what is copied, how often it is waited for, and what if its memory ends.

Counted by a pretend accelerator, since few machines have a real one; budgets hold for every size.
"""

import pytest
import torch
from safetensors.torch import save_file

from dgviz import device as devices
from dgviz.checkpoint import open_pair
from dgviz.rmt.threshold import find_rule
from dgviz.spectra.model_scan import _siblings
from dgviz.spectra.scan import scan_weights
from dgviz.spectra.schedule import Admission, batch_size, plan_tasks
from dgviz.spectra.svd.decompose import decompose, decompose_stack
from dgviz.spectra.weight import weights_of
from tests.accelerator import pretend_accelerator
from tests.deltas import FAMILIES, spiked

SLOW, FAST = torch.float32, torch.float64  # what Gram matrices are formed in where float64 is slow, where it is fast


def write_spiked(folder, shapes, experts=None):
    """A bfloat16 pair of tensors with spikes in their updates, each alone or a stack of experts."""
    sides = {"base": {}, "tuned": {}}
    for number, shape in enumerate(shapes):
        updates = torch.stack([1e-3 * spiked(*shape, 5, 6, seed=seed).float() for seed in range(experts or 1)])
        base = 0.02 * torch.randn(updates.shape, generator=torch.Generator().manual_seed(number))
        name = f"model.layers.{number}.mlp.{'experts' if experts else 'up'}.weight"
        for side, tensor in (("base", base), ("tuned", base + updates)):
            sides[side][name] = (tensor if experts else tensor[0]).bfloat16()
    for side, tensors in sides.items():
        (folder / side).mkdir()
        save_file(tensors, folder / side / "model.safetensors", metadata={"format": "pt"})
    return open_pair(folder / "base", folder / "tuned")


def scan(pair, store, device="cuda:0"):
    weights = weights_of(pair)
    rows = scan_weights(weights, [("dg_hard", {})] * len(weights), device, 1, store)
    for row in rows:
        if isinstance(row, Exception):
            raise row
    return rows


def stored_bytes(pair):
    return sum(weight.base.nbytes + weight.tuned.nbytes for weight in weights_of(pair))


@pytest.mark.parametrize("gram", [FAST, SLOW])
def test_a_decomposition_waits_no_more_for_a_larger_matrix(gram):
    counts = []
    for shape in ((700, 660), (900, 850)):
        delta = FAMILIES["30 spikes to 1e3"](*shape).float()
        expected = decompose(delta, "cpu")
        rank = find_rule("dg_hard").apply(expected.s.numpy(), shape).rank
        with pretend_accelerator(gram=gram) as gpu:
            there = delta.to("cuda:0")
            gpu.reset()
            found = decompose(there, "cuda")
            waits = sum(gpu.waits.values())
            left, right = (part.cpu() for part in found.triplets(rank))
            counts.append((waits, sum(gpu.waits.values()), sum(gpu.launches.values())))
        strong = slice(0, shape[1] // 2)  # float32 rounds the weakest of a square matrix differently
        torch.testing.assert_close(found.s[strong], expected.s[strong], rtol=1e-5, atol=0)
        best = torch.mm(*expected.triplets(rank))
        assert float((left @ right - best).norm() / best.norm()) < 1e-5
    assert counts[0][2] == pytest.approx(counts[1][2], abs=10)
    assert max(count[0] for count in counts) <= (4 if gram == FAST else 20)
    assert max(count[1] for count in counts) <= 40


def test_no_run_in_float64_is_larger_than_a_block_where_float64_is_slow(monkeypatch):
    block = 2**18
    monkeypatch.setattr(devices, "_GPU_BLOCK", block)
    delta = FAMILIES["30 spikes to 1e3"](1000, 940).float()
    with pretend_accelerator(gram=SLOW) as gpu:
        there = delta.to("cuda:0")
        found = decompose(there, "cuda")
        found.triplets(30)
        assert found.certificate.route == "gram32"
        assert gpu.largest[torch.float32] == delta.numel()
        # What is p x p or a block of vectors is no copy of the matrix; a run has 512 rows at least.
        assert gpu.largest[torch.float64] <= max(block, 512 * 940) < delta.numel()


def test_a_batch_of_experts_waits_as_often_as_one_of_few():
    counts = []
    for experts in (3, 9):
        deltas = [spiked(90, 70, 3, 12, seed=10 * seed).float() for seed in range(experts)]
        names = [str(number) for number in range(experts)]
        with pretend_accelerator() as gpu:
            there = [delta.to("cuda:0") for delta in deltas]
            gpu.reset()
            found = decompose_stack(there, "cuda", names)
            parts = [decomposition.triplets(3) for decomposition in found]
            counts.append(sum(gpu.waits.values()))
            products = [(left @ right).cpu() for left, right in parts]
        for delta, product, decomposition in zip(deltas, products, found, strict=True):
            alone = decompose(delta, "cpu")
            torch.testing.assert_close(decomposition.s, alone.s, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(product, torch.mm(*alone.triplets(3)), rtol=1e-4, atol=1e-4)
    assert counts[0] == counts[1] <= 3


@pytest.mark.parametrize("gram", [FAST, SLOW])
def test_a_scan_sends_every_byte_once_and_waits_no_more_for_a_larger_matrix(tmp_path, gram):
    counts = []
    for number, shape in enumerate([(700, 650), (1000, 700)]):
        (tmp_path / str(number)).mkdir()
        pair = write_spiked(tmp_path / str(number), [shape])
        with pretend_accelerator(gram=gram) as gpu:
            (row,) = scan(pair, tmp_path / f"{number}.gpu")
            counts.append((sum(gpu.waits.values()), sum(gpu.launches.values())))
            assert stored_bytes(pair) <= gpu.bytes_in <= 1.1 * stored_bytes(pair)
            assert gpu.bytes_out <= 0.1 * stored_bytes(pair)
            assert not any("from the host" in why for why in gpu.waits)
        (expected,) = scan(pair, tmp_path / f"{number}.cpu", "cpu")
        assert row["rank"] == expected["rank"] and row["warnings"] == expected["warnings"]
        assert row["tau"] == pytest.approx(expected["tau"], rel=1e-6)
        steps, expected_steps = (side["summary"].pop("steps") for side in (row, expected))
        assert steps.pop("classes") == expected_steps.pop("classes")
        assert steps == pytest.approx(expected_steps)
        assert row["summary"] == pytest.approx(expected["summary"], rel=1e-5)
    assert max(waits for waits, _ in counts) <= (20 if gram == FAST else 32)
    assert counts[1][1] <= 1.1 * counts[0][1]


def test_separate_experts_of_one_shape_are_decomposed_together(tmp_path):
    pair = write_spiked(tmp_path, [(90, 70)] * 4 + [(70, 90)])
    tasks = plan_tasks(pair)
    admission = Admission(2**30, 4)
    first = admission.admit(tasks)
    together = _siblings(first, tasks, admission, batch_size(first.weight, "cuda:0"))
    assert {task.weight.shape for task in together} == {first.weight.shape} and len(together) == 3
    assert batch_size(first.weight, "cpu") == 1
    weights = [task.weight for task in (first, *together)]
    with pretend_accelerator() as gpu:
        scan_weights(weights, [("dg_hard", {})] * 4, "cuda:0", 1, tmp_path / "store")
        assert gpu.launches["_linalg_eigh"] == 1


def test_where_memory_ends_half_as_many_are_tried_and_then_the_cpu_which_is_said(tmp_path, caplog):
    pair = write_spiked(tmp_path, [(90, 70)] * 4)
    with pretend_accelerator() as gpu:
        whole = scan(pair, tmp_path / "whole")
        most = gpu.peak
    with pretend_accelerator(capacity=0.7 * most) as gpu:
        halved = scan(pair, tmp_path / "halved")
        assert gpu.launches["_linalg_eigh"] >= 2 and gpu.peak <= 0.7 * most
    assert "cuda:0 ran out of memory: 2 matrices at once are tried next" in caplog.text
    with pretend_accelerator(capacity=20_000):
        on_cpu = scan(pair, tmp_path / "cpu")
    for row, half, last in zip(whole, halved, on_cpu, strict=True):
        assert row["tau"] == pytest.approx(half["tau"], rel=1e-9) == pytest.approx(last["tau"], rel=1e-6)
        assert row["warnings"] == half["warnings"] == []
        assert last["warnings"] == ["cuda:0 ran out of memory, so this was computed on the CPU"]
