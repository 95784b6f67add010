"""A mask stored among the weights holds equal infinities on both sides: every way to open a pair takes it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.repair.methods import METHODS
from tests.app.pages import open_at
from tests.checkpoints import random_tensors, write_checkpoint, write_tiny_pair
from tests.scans import scan_here

MASK, TRAINED = "model.mask", "model.bias_table"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    directory = tmp_path_factory.mktemp("masks")
    generator = torch.Generator().manual_seed(3)
    hidden = torch.zeros(64, 64).masked_fill(torch.ones(64, 64).triu(1) > 0, float("-inf"))
    table = torch.randn(64, 64, generator=generator).masked_fill(torch.eye(64) > 0, float("-inf"))
    base = {**random_tensors(), MASK: hidden, TRAINED: table}
    written = [write_checkpoint(directory / "base", base)]
    for name, size in (("tuned", 1e-2), ("other", 2e-2)):
        change = {
            key: tensor + size * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for key, tensor in base.items()
        }
        written.append(write_checkpoint(directory / name, {**change, MASK: hidden}))
    return [str(path) for path in written]


def run(capsys, *arguments):
    status = main([*arguments])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


@pytest.mark.parametrize("name", [MASK, TRAINED])
def test_spectrum_of_the_tensor_itself(capsys, paths, name):
    found = json.loads(run(capsys, "spectrum", *paths[:2], name, "--json"))
    s = torch.tensor(found["matrices"][0]["singular_values"])
    base, tuned = (load_file(f"{path}/model.safetensors")[name].double() for path in paths[:2])
    exact = torch.linalg.svdvals(torch.where(base == tuned, 0.0, tuned - base))
    torch.testing.assert_close(s.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "command",
    [
        "inspect",
        "noise",
        "thresholds",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("scan", "compare-methods", "family")),
    ],
)
def test_commands_on_the_whole_pair(capsys, paths, command):
    if command in ("noise", "thresholds"):
        scan_here(open_pair(*paths[:2]))
    more = {
        "scan": ["--workers", "1"],
        "family": [paths[2], "--workers", "1"],
        "compare-methods": ["--methods", ",".join(METHODS)],
    }.get(command, [])
    out = run(capsys, command, *paths[:2], *more, "--json")
    assert "NaN" not in out


@pytest.mark.parametrize("form", ["full", "factors"])
def test_repairs(capsys, paths, tmp_path, form):
    run(capsys, "repair", *paths[:2], str(tmp_path / "out"), "--format", form)
    if form != "full":
        return
    written = load_file(tmp_path / "out" / "model.safetensors")
    base, tuned = (load_file(f"{path}/model.safetensors") for path in paths[:2])
    assert torch.equal(written[MASK], tuned[MASK])
    assert torch.equal(torch.isinf(written[TRAINED]), torch.isinf(base[TRAINED]))
    assert not torch.isnan(written[TRAINED]).any()


@pytest.mark.slow
def test_a_repair_as_an_adapter_leaves_the_mask_to_base(capsys, tmp_path):
    paths = write_tiny_pair(tmp_path, "llama_untied")
    mask = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1) > 0, float("-inf"))
    for path in paths:
        file = path / "model.safetensors"
        save_file({**load_file(file), MASK: mask}, file, {"format": "pt"})
    rank = ("--rule", "fixed_rank", "--rule-param", "rank=2")  # all of this update is noise
    run(capsys, "repair", *map(str, paths), str(tmp_path / "out"), "--format", "lora", *rank)
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert written and not any("mask" in name for name in written)
    assert all(torch.isfinite(tensor).all() for tensor in written.values())


def test_infinities_count_neither_as_size_nor_as_rounding(capsys, tmp_path):
    """Both figures are of the numbers among the entries: as if zeros stood where the mask is."""
    generator = torch.Generator().manual_seed(5)
    base, change = torch.randn(2, 64, 64, generator=generator)
    found = {}
    for mask in (float("-inf"), 0.0):
        sides = [
            write_checkpoint(
                tmp_path / f"{side}{mask}", {TRAINED: values.masked_fill(torch.eye(64) > 0, mask).bfloat16()}
            )
            for side, values in (("base", base), ("tuned", base + 1e-2 * change))
        ]
        found[mask] = json.loads(run(capsys, "spectrum", *map(str, sides), TRAINED, "--json"))["matrices"][0]
    masked, plain = found.values()
    assert 0 < masked["summary"]["relative_size"] == plain["summary"]["relative_size"]
    assert 0 < masked["rounding"]["sigma"] == plain["rounding"]["sigma"]


PARTS = ("spectrum", "rules", "methods", "model", "model-rules", "model-methods", "family")
PAGES = ["open", *(f"workbench?show={part}" for part in PARTS), "workbench?plan=open", "evidence"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", [MASK, TRAINED])
def test_pages(paths, page, name):
    app = open_at(page, 120, base=paths[0], tuned=paths[1], weight=name)
    assert not app.error, [item.value for item in app.error]
