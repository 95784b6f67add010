"""A whole export on a GPU, counted by a pretend accelerator: every byte there once, the result back once."""

import pytest
from safetensors.torch import load_file

from dgviz.export import plan_export
from dgviz.export.write import iter_export
from dgviz.repair.plan import RepairPlan
from tests.accelerator import pretend_accelerator
from tests.spectra.test_gpu_budget import stored_bytes, write_spiked


@pytest.mark.parametrize("output", ["full", "factors"])
def test_an_export_sends_every_byte_once_and_gives_what_the_cpu_gives(tmp_path, output, monkeypatch):
    pair = write_spiked(tmp_path, [(200, 180), (180, 200)] * 2)
    list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "cpu", output), "cpu"))
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))
    with pretend_accelerator() as gpu:
        list(iter_export(plan_export(pair, RepairPlan(), tmp_path / "gpu", output), "cuda:0"))
        assert gpu.bytes_in <= 1.1 * stored_bytes(pair)
        if output == "full":
            assert gpu.launches["_linalg_eigh"] == 2  # one for each shape
    name = "model.safetensors" if output == "full" else "factors.safetensors"
    found, expected = (load_file(tmp_path / side / name) for side in ("gpu", "cpu"))
    assert found.keys() == expected.keys()
    if output == "full":
        written = sum(tensor.nbytes for tensor in found.values())
        assert gpu.bytes_out <= 1.1 * written + 2**16
        assert all(float((found[key] != expected[key]).float().mean()) < 1e-3 for key in found)
    else:
        assert all(found[key].shape == expected[key].shape for key in found)
