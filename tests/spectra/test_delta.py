"""compute_delta: tuned - base, exactly, as the matrix that will be decomposed."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgviz.checkpoint import open_pair, read_tensor
from dgviz.errors import CheckpointError, PairError
from dgviz.spectra.delta import BLOCK_ELEMENTS, compute_delta
from dgviz.spectra.weight import Weight
from tests.checkpoints import planted_update, random_tensors, write_checkpoint, write_pair

ROOT = Path(__file__).parents[2]
WIDE = (torch.float64, torch.float32)
DTYPES = (*WIDE, torch.bfloat16, torch.float16)
STACK = "model.layers.2.mlp.experts.gate_up_proj"


@pytest.mark.parametrize("tuned_dtype", DTYPES)
@pytest.mark.parametrize("base_dtype", DTYPES)
def test_the_difference_is_taken_after_widening(tmp_path, base_dtype, tuned_dtype):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(48, 40, generator=generator, dtype=torch.float64).to(base_dtype)
    tuned = (base.double() + 1e-3 * torch.randn(48, 40, generator=generator)).to(tuned_dtype)
    pair = open_pair(write_checkpoint(tmp_path / "b", {"w": base}), write_checkpoint(tmp_path / "t", {"w": tuned}))
    delta = compute_delta(Weight(pair["w"]), "cpu")
    wide = torch.float64 if torch.float64 in (base_dtype, tuned_dtype) else torch.float32
    assert delta.dtype == wide and delta.is_contiguous() and delta.device.type == "cpu"
    assert torch.equal(delta, tuned.to(wide) - base.to(wide))


@pytest.mark.parametrize("shards", [1, 3])
def test_kernels_stacks_and_singletons(tmp_path, shards):
    pair = open_pair(*write_pair(tmp_path, torch.bfloat16, shards))
    for paired in pair.repairable:
        whole = read_tensor(paired.tuned).float() - read_tensor(paired.base).float()
        if paired.name == STACK:
            for index in range(4):
                assert torch.equal(compute_delta(Weight(paired, index), "cpu"), whole[index])
        else:
            delta = compute_delta(Weight(paired), "cpu")
            assert delta.dim() == 2 and torch.equal(delta.flatten(), whole.flatten())
    assert compute_delta(Weight(pair["model.conv.weight"]), "cpu").shape == (32, 48)
    assert compute_delta(Weight(pair["model.pos"]), "cpu").shape == (40, 32)


@given(rows=st.integers(2, 70), cols=st.integers(15, 70), block=st.integers(1, 200))
def test_blocks_of_any_size_give_the_same(tmp_path_factory, rows, cols, block):
    directory = tmp_path_factory.mktemp("pair")
    base = torch.randn(rows, cols)
    tuned = (base + torch.randn(rows, cols)).bfloat16()
    extra = {"large": torch.zeros(32, 32)}
    pair = open_pair(
        write_checkpoint(directory / "b", {"w": base} | extra),
        write_checkpoint(directory / "t", {"w": tuned} | extra),
    )
    assert torch.equal(compute_delta(Weight(pair["w"]), "cpu", block), tuned.float() - base)


def test_identical_weights_give_exact_zeros(tmp_path):
    tensors = random_tensors(dtype=torch.float16)
    paths = write_checkpoint(tmp_path / "b", tensors), write_checkpoint(tmp_path / "t", tensors)
    assert compute_delta(Weight(open_pair(*paths)["model.embed_tokens.weight"]), "cpu").count_nonzero() == 0


def test_the_result_is_the_callers_own(tmp_path):
    paired = open_pair(*write_pair(tmp_path))["model.pos"]
    first = compute_delta(Weight(paired), "cpu")
    kept = first.clone()
    first.zero_()
    assert torch.equal(compute_delta(Weight(paired), "cpu"), kept)


def test_non_finite_values_pass_through(tmp_path):
    base, tuned = torch.zeros(32, 32), torch.zeros(32, 32)
    base[0, 0], tuned[1, 1], tuned[2, 2] = torch.inf, torch.nan, -torch.inf
    pair = open_pair(write_checkpoint(tmp_path / "b", {"w": base}), write_checkpoint(tmp_path / "t", {"w": tuned}))
    delta = compute_delta(Weight(pair["w"]), "cpu")
    assert delta[0, 0] == -torch.inf and delta[1, 1].isnan() and delta[2, 2] == -torch.inf
    assert delta.isfinite().sum() == 32 * 32 - 3


def test_an_excluded_matrix_has_a_delta_still(tmp_path):
    """Exclusion is about writing: looking stays possible."""
    pair = open_pair(*write_pair(tmp_path), exclude="pos")
    assert pair["model.pos"].action == "keep"
    assert compute_delta(Weight(pair["model.pos"]), "cpu").shape == (40, 32)


@pytest.mark.parametrize(
    ("name", "index", "complaint"),
    [
        ("new.weight", None, r"'new.weight' has no delta: Only in tuned"),
        ("old.weight", None, r"'old.weight' has no delta: Only in base"),
        ("grown.weight", None, r"'grown.weight' has no delta: Excluded"),
        ("model.norm.weight", None, r"of shape \(2048,\) is not a matrix"),
        (
            "model.position_ids",
            None,
            r"'model.position_ids' is int64 in .*: only float64, float32, bfloat16 and float16",
        ),
        ("model.pos", 0, r"is one matrix, without an index: index 0 does not fit"),
        (STACK, None, r"is a stack of 4 matrices: index None does not fit"),
        (STACK, 4, r"is a stack of 4 matrices: index 4 does not fit"),
        (STACK, -1, r"is a stack of 4 matrices: index -1 does not fit"),
    ],
)
def test_what_has_no_delta(tmp_path, name, index, complaint):
    base = random_tensors() | {"old.weight": torch.zeros(32, 32), "grown.weight": torch.zeros(32, 32)}
    tuned = planted_update(base) | {"new.weight": torch.zeros(32, 32), "grown.weight": torch.zeros(40, 32)}
    del tuned["old.weight"]
    paths = write_checkpoint(tmp_path / "b", base), write_checkpoint(tmp_path / "t", tuned)
    with pytest.raises(PairError, match=complaint):
        compute_delta(Weight(open_pair(*paths, exclude="grown")[name], index), "cpu")


def test_a_file_that_shrank(tmp_path):
    paired = open_pair(*write_pair(tmp_path))["model.pos"]
    os.truncate(paired.base.file, paired.base.start)
    with pytest.raises(CheckpointError, match=r"base.*ends inside tensor 'model.pos'"):
        compute_delta(Weight(paired), "cpu")


def test_a_stack_behind_a_singleton(tmp_path):
    tensors = {"experts.w": torch.randn(1, 4, 32, 24)}
    pair = open_pair(
        write_checkpoint(tmp_path / "b", tensors), write_checkpoint(tmp_path / "t", planted_update(tensors))
    )
    expected = read_tensor(pair["experts.w"].tuned) - tensors["experts.w"]
    assert torch.equal(compute_delta(Weight(pair["experts.w"], 2), "cpu"), expected[0, 2])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_peak_memory_is_as_documented(tmp_path):
    """A bfloat16 pair: the float32 result and one side as stored, 6 bytes an element; widening both takes 8."""
    rows = cols = 4096
    for side in ("b", "t"):
        write_checkpoint(tmp_path / side, {"w": torch.zeros(rows, cols, dtype=torch.bfloat16)})
    code = (
        "import sys, torch\n"
        "from dgviz.checkpoint import open_pair\n"
        "from dgviz.spectra.delta import compute_delta; from dgviz.spectra.weight import Weight\n"
        "torch.set_num_threads(1)\n"
        "lines = lambda: open('/proc/self/status')\n"
        "status = lambda key: next(int(line.split()[1]) for line in lines() if line.startswith(key)) * 1024\n"
        "paired = open_pair(*sys.argv[1:])['w']\n"
        "(torch.ones(64, 64, dtype=torch.bfloat16).float() - 1)[:2].sub_(1)\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = status('VmRSS')\n"
        "delta = compute_delta(Weight(paired), 'cpu')\n"
        "print((status('VmHWM') - before) / delta.numel())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "b"), str(tmp_path / "t")]
    per_element = float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300).stdout)
    block = 4 * BLOCK_ELEMENTS / (rows * cols)
    assert 4 <= per_element <= 6 + block + 0.25


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_bits(tmp_path):
    pair = open_pair(*write_pair(tmp_path, torch.bfloat16))
    for paired in pair.repairable:
        weight = Weight(paired, 1 if paired.name == STACK else None)
        delta = compute_delta(weight, "cuda:0")
        assert delta.device.type == "cuda" and torch.equal(delta.cpu(), compute_delta(weight, "cpu"))


def test_the_paired_value_is_all_it_needs(tmp_path):
    """A worker gets the paired tensor alone, without the checkpoints."""
    paired = open_pair(*write_pair(tmp_path))["model.pos"]
    renamed = replace(paired, name="other")
    assert torch.equal(compute_delta(Weight(renamed), "cpu"), compute_delta(Weight(paired), "cpu"))
