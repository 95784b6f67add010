"""Descent: a pair that does not belong together is refused, however well its names and shapes agree."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dgviz.checkpoint import inspect_pair, open_pair, read_preflight
from dgviz.checkpoint import sample as sample_module
from dgviz.checkpoint.descent import measure_descent
from dgviz.cli import main
from dgviz.errors import PairError
from dgviz.repair.plan import RepairPlan
from tests.checkpoints import tiny_model, write_checkpoint


def matrices(seed, layers=3, heads=(64, 48)):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"model.layers.{i}.{name}.weight": 0.02 * torch.randn(shape, generator=generator)
        for i in range(layers)
        for name, shape in (("self_attn.q_proj", heads), ("mlp.up_proj", (128, 48)))
    }


def moved(tensors, size=1e-3, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return {name: value + size * torch.randn(value.shape, generator=generator) for name, value in tensors.items()}


def write(directory, base, tuned):
    return write_checkpoint(directory / "base", base), write_checkpoint(directory / "tuned", tuned)


def found(paths):
    return {notice.code: notice for notice in read_preflight(inspect_pair(*paths)).notices}


def test_unrelated_weights_are_refused_and_nothing_is_written(tmp_path, capsys):
    paths = write(tmp_path, matrices(0), matrices(1))
    words = ["repair", *map(str, paths), str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 2 and not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "base and tuned do not belong together: 100 % of the parameters" in said and "--force" in said
    assert "|tuned - base| / |base| 1." in said
    assert main(["inspect", *map(str, paths), "--json"]) == 2
    row = json.loads(capsys.readouterr().out)["tensors"][0]
    assert abs(row["descent"]["correlation"]) < 0.1 and row["descent"]["ratio"] == pytest.approx(2**0.5, rel=0.05)
    assert main(["scan", *map(str, paths), "--device", "cpu", "--workers", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"]["verdict"] == "not_applicable" and "nothing in common" in str(report["model"]["reasons"])
    assert main([*words, "--force"]) == 0
    assert "do not belong together" in str(json.loads((tmp_path / "out" / "dgviz.json").read_text())["warnings"])


@pytest.mark.parametrize("kind", ["unrelated", "another shape"])
def test_what_a_scan_accepts_is_looked_at_by_all_and_repaired_by_force(tmp_path, capsys, kind):
    base = matrices(0)
    tuned = matrices(1) if kind == "unrelated" else moved(base)
    other = next(iter(base))
    if kind != "unrelated":
        tuned[other] = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
    pair = [str(path) for path in write(tmp_path, base, tuned)]
    for command in (
        ["scan", "--workers", "1"],
        ["noise"],
        ["thresholds"],
        ["compare-methods", "--methods", "dg_hard"],
    ):
        assert main([command[0], *pair, *command[1:], "--json"]) == 0, command
        assert "warning: " in capsys.readouterr().err
    assert main(["repair", *pair, str(tmp_path / "out")]) == 2 and not (tmp_path / "out").exists()
    assert main(["repair", *pair, str(tmp_path / "out"), "--force"]) == 0
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == tuned.keys() and (kind == "unrelated" or torch.equal(written[other], tuned[other]))


def test_a_head_begun_anew_is_left_as_tuned(tmp_path):
    base = matrices(0) | {"score.weight": matrices(3)["model.layers.0.mlp.up_proj.weight"]}
    tuned = moved(base) | {"score.weight": matrices(4)["model.layers.0.mlp.up_proj.weight"]}
    paths = write(tmp_path, base, tuned)
    row = open_pair(*paths)["score.weight"]
    assert (row.action, row.cause, row.descent.sampled) == ("keep", "unrelated", False)
    assert not RepairPlan(method="wise_ft", method_params={"alpha": 0.5}).changes(row)
    assert "left as in tuned: score.weight (|tuned - base| / |base| 1." in found(paths)["unrelated_tensors"].message


@pytest.mark.parametrize("size", [0.02, 0.06])  # as large as the weights, and three times as large
def test_long_training_is_never_refused(tmp_path, size):
    base = matrices(0)
    pair = open_pair(*write(tmp_path, base, moved(base, size)))
    assert pair.counts()["keep"] == 0
    assert all(row.descent.ratio == pytest.approx(size / 0.02, rel=0.05) for row in pair.repairable)


def test_only_most_of_the_model_is_a_refusal(tmp_path):
    base, other = matrices(0, layers=4), matrices(1, layers=4)
    tuned = moved(base) | {name: other[name] for name in other if ".0." in name}
    assert len(open_pair(*write(tmp_path / "quarter", base, tuned)).repairable) == 6
    tuned |= {name: other[name] for name in other if ".3." not in name}
    with pytest.raises(PairError, match="75 % of the parameters"):
        open_pair(*write(tmp_path / "most", base, tuned))


def rotary(size, rows, inverse=False):
    """Return the order in which GGUF's conversion puts rows of rotary heads."""
    order = torch.arange(rows).reshape(-1, 2, size // 2).transpose(1, 2).reshape(-1)
    return torch.argsort(order) if inverse else order


@pytest.mark.parametrize(
    ("shape", "order", "axis", "words"),
    [
        ((64, 48), rotary(16, 64), 0, "rows permuted within heads of 16: the two rotary halves interleaved, as GGUF"),
        ((64, 48), rotary(16, 64, True), 0, "rows permuted within heads of 16: rotary pairs taken apart"),
        ((512, 256), rotary(64, 512), 0, "rows permuted within heads of 64: the two rotary halves interleaved"),
        ((512, 256), rotary(128, 512), 0, "rows permuted within heads of 128: the two rotary halves interleaved"),
        ((64, 48), torch.arange(63, -1, -1), 0, "rows permuted: 63 to 0, 62 to 1, 61 to 2 and 61 more"),
        ((64, 48), torch.arange(64).reshape(-1, 4).flip(1).reshape(-1), 0, "heads of 4: 3 to 0, 2 to 1, 1 to 2"),
        ((64, 48), rotary(8, 48), 1, "columns permuted within heads of 8: the two rotary halves interleaved"),
    ],
)
def test_a_permutation_is_named(tmp_path, shape, order, axis, words):
    base = matrices(0, heads=shape)
    tuned = moved(base)
    permuted = [name for name in tuned if "q_proj" in name][:1]
    tuned |= {name: tuned[name].index_select(axis, order) for name in permuted}
    paths = write(tmp_path, base, tuned)
    assert words in found(paths)["permuted"].message
    pair = open_pair(*paths)
    assert [row.name for row in pair.tensors if row.cause == "permuted"] == permuted
    assert words in pair[permuted[0]].reason


def test_a_permutation_is_found_beside_infinities(tmp_path):
    """As masks have them, at the same place in every row: what else a row holds still tells which it was."""
    base = matrices(0, heads=(64, 48))
    name = next(name for name in base if "q_proj" in name)
    base[name][:, 5] = -float("inf")
    tuned = moved(base)
    tuned[name] = tuned[name][rotary(16, 64)]
    assert "two rotary halves interleaved" in found(write(tmp_path, base, tuned))["permuted"].message


def test_tuned_that_is_base_is_said_to_be(tmp_path):
    paths = write(tmp_path, matrices(0), matrices(0))
    assert found(paths)["unchanged"].message.startswith("Tuned is base")


def test_a_sample_stays_small_and_tells_the_same(tmp_path, monkeypatch):
    base = {f"layers.{i}.weight": 0.02 * torch.randn(900, 700) for i in range(4)}
    tuned = moved(base, 0.01)
    paths = write(tmp_path, base, {name: value.bfloat16() for name, value in tuned.items()})
    read = []
    kept = sample_module.read_bytes
    monkeypatch.setattr(sample_module, "read_bytes", lambda info, start, n: read.append(n) or kept(info, start, n))
    for row in inspect_pair(*paths).repairable:
        whole = measure_descent(row.base, row.tuned, None)
        assert row.descent.sampled and not whole.sampled
        assert row.descent.ratio == pytest.approx(whole.ratio, rel=0.05)
        assert row.descent.correlation == pytest.approx(whole.correlation, abs=0.03)
    monkeypatch.undo()
    assert sum(read) - sum(value.nbytes * 3 / 2 for value in base.values()) <= 8 * sample_module.TENSOR_BYTES


def test_values_that_are_no_numbers_are_named_among_what_is_copied(tmp_path):
    base = matrices(0) | {"model.norm.weight": torch.ones(48)}
    tuned = moved(base)
    tuned["model.norm.weight"][2] = float("nan")
    message = found(write(tmp_path, base, tuned))["not_finite"].message
    assert (
        message
        == "Values of tuned that are no numbers will be copied as they are: model.norm.weight holds nan at [2]."
    )


@pytest.mark.parametrize("family", ["gpt2"])
def test_models_built_apart_are_refused(tmp_path, family):
    for seed, side in enumerate(("base", "tuned")):
        tiny_model(family, seed).save_pretrained(tmp_path / side)
    with pytest.raises(PairError, match="do not belong together"):
        open_pair(tmp_path / "base", tmp_path / "tuned")


def test_small_tensors_are_compared_together_as_each_alone(tmp_path):
    generator = torch.Generator().manual_seed(3)
    shapes = [(32, 32), (40, 32), (32, 64), (64, 96)]  # the last is compared alone
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(24)]
    base = {name: torch.randn(shapes[i % 4], generator=generator) for i, name in enumerate(names)}
    base = {name: value.to(torch.bfloat16) if "1" in name else value for name, value in base.items()}
    tuned = moved({name: value.float() for name, value in base.items()})
    tuned["model.layers.4.mlp.up_proj.weight"] = torch.randn(32, 32, generator=generator)
    tuned["model.layers.8.mlp.up_proj.weight"][3, 5] = float("inf")
    tuned["model.layers.20.mlp.up_proj.weight"] = tuned["model.layers.20.mlp.up_proj.weight"].flip(0)
    pair = inspect_pair(*write(tmp_path, base, tuned))
    for row in pair.tensors:
        alone = measure_descent(row.base, row.tuned, 8192)
        assert row.descent.correlation == pytest.approx(alone.correlation, rel=1e-12), row.name
        assert row.descent.ratio == pytest.approx(alone.ratio, rel=1e-12), row.name
        assert (row.descent.sampled, row.descent.permutation) == (alone.sampled, alone.permutation), row.name
    kept = {row.name.split(".")[2]: row.cause for row in pair.tensors if row.action == "keep"}
    assert kept == {"4": "unrelated", "20": "permuted"}
