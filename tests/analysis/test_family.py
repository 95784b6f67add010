"""Several tuned checkpoints of one base: what belongs together, figures side by side, and overlaps against chance."""

import json
import math

import numpy as np
import pytest
import torch

from dgviz.analysis.family import distinct_names, family_csv, match_members, member_report
from dgviz.analysis.family.overlap import chance_overlap, mean_overlap
from dgviz.analysis.family.shared import iter_compared
from dgviz.analysis.figures import FIGURES
from dgviz.analysis.groups import groups_of, layers_of
from dgviz.analysis.model_spectra import assess, read_spectra
from dgviz.checkpoint import open_pair
from dgviz.cli import main
from dgviz.errors import PairError
from dgviz.repair.plan import RepairPlan
from dgviz.spectra.scan import scan_weights
from dgviz.spectra.store import SpectrumStore
from dgviz.spectra.weight import weights_of
from tests.checkpoints import write_checkpoint
from tests.scans import scan_here

ROWS, COLS, RANK, NOISE = 96, 64, 4, 1e-3
MODULES = "mlp.up_proj", "self_attn.q_proj"
NAMES = [f"model.layers.{layer}.{module}.weight" for layer in range(3) for module in MODULES]
HEAD = "lm_head.weight"
PLAN = RepairPlan()


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def directions(seed, length=ROWS, count=RANK):
    return torch.linalg.qr(normal(seed, length, count)).Q


def update(left, right, seed, strength=1.0):
    """A planted update of rank RANK and noise, far enough above it that DG-Hard keeps exactly the planted ones."""
    spikes = torch.linspace(20, 40, RANK) * NOISE * (ROWS**0.5 + COLS**0.5)
    return strength * ((directions(left) * spikes) @ directions(right, COLS).T + NOISE * normal(seed, ROWS, COLS))


def base_tensors():
    weights = {name: normal(number, ROWS, COLS) for number, name in enumerate(NAMES)}
    return weights | {"lm_head.weight": normal(50, 80, COLS), "model.norm.weight": torch.ones(COLS)}


def write_family(root, **updates):
    """Write a base and one checkpoint per function of a weight's number."""
    base = base_tensors()
    paths = [write_checkpoint(root / "base", base, {"model_type": "synthetic"})]
    for name, change in updates.items():
        changed = {key: base[key] + change(number) for number, key in enumerate(NAMES)}
        paths.append(write_checkpoint(root / name, base | changed, {"model_type": "synthetic"}))
    return paths


def compared(paths, store, scan=True, plan=PLAN):
    pairs = [open_pair(paths[0], tuned) for tuned in paths[1:]]
    for pair in pairs if scan else ():
        for weight in weights_of(pair):
            scan_weights([weight], [(plan.rule, dict(plan.params))], "cpu", 1, store.root)
    weights, apart = match_members(pairs)
    return list(iter_compared(weights, plan, "cpu", store)), apart


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """One fine-tune, its copy, one with the same left directions only, and one that shares nothing."""
    root = tmp_path_factory.mktemp("family")
    paths = write_family(
        root,
        first=lambda i: update(100 + i, 200 + i, 300 + i),
        copy=lambda i: update(100 + i, 200 + i, 300 + i),
        left=lambda i: update(100 + i, 400 + i, 500 + i),
        other=lambda i: update(600 + i, 700 + i, 800 + i),
    )
    return paths, SpectrumStore(root / "store")


@pytest.fixture(scope="module")
def known(family):
    return compared(*family)[0]


def means(found, pair):
    return mean_overlap(item.overlaps[pair] for item in found)


def test_identical_checkpoints_overlap_fully(known):
    for item in known[1:]:
        overlap = item.overlaps[0, 1]
        assert item.ranks[:2] == (RANK, RANK)
        assert overlap.left.value == pytest.approx(1, abs=1e-6) and overlap.right.value == pytest.approx(1, abs=1e-6)
        assert overlap.kept_cosine == pytest.approx(1, abs=1e-6) and overlap.cosine == pytest.approx(1, abs=1e-9)


def test_planted_directions_that_are_shared_on_one_side_are_found_on_that_side(known):
    mean = means(known, (0, 2))
    assert mean.left.value > 0.99
    assert abs(mean.right.value - mean.right.chance) < 5 * mean.right.spread
    assert abs(mean.kept_cosine) < 0.3  # the same left directions with other right ones are other matrices


def test_what_shares_nothing_overlaps_as_chance_would(known):
    mean = means(known, (0, 3))
    assert mean.left.chance == pytest.approx(RANK / ROWS) and mean.right.chance == pytest.approx(RANK / COLS)
    for side in (mean.left, mean.right):
        assert abs(side.value - side.chance) < 5 * side.spread
        assert side.value < 0.2


def test_overlaps_and_cosines_equal_those_of_numpy(family, known):
    from safetensors.numpy import load_file

    paths, _ = family
    base, first, other = (load_file(paths[i] / "model.safetensors") for i in (0, 1, 3))
    for name, item in zip(NAMES, known[1:], strict=True):
        one, two = (tuned[name].astype(float) - base[name] for tuned in (first, other))
        (u, s, v), (w, t, z) = (np.linalg.svd(delta, full_matrices=False) for delta in (one, two))
        overlap = item.overlaps[0, 2]
        assert overlap.left.value == pytest.approx(np.sum((u[:, :RANK].T @ w[:, :RANK]) ** 2) / RANK, abs=1e-5)
        assert overlap.right.value == pytest.approx(np.sum((v[:RANK] @ z[:RANK].T) ** 2) / RANK, abs=1e-5)
        assert overlap.cosine == pytest.approx(
            np.sum(one * two) / np.linalg.norm(one) / np.linalg.norm(two), abs=1e-6
        )
        kept = [(a[:, :RANK] * b[:RANK]) @ c[:RANK] for a, b, c in ((u, s, v), (w, t, z))]
        cosine = np.sum(kept[0] * kept[1]) / np.linalg.norm(kept[0]) / np.linalg.norm(kept[1])
        assert overlap.kept_cosine == pytest.approx(cosine, abs=1e-5)
        assert overlap.norms == pytest.approx((np.linalg.norm(one), np.linalg.norm(two)), rel=1e-5)


def test_what_no_scan_has_stored_is_computed(family, known, tmp_path):
    fresh, _ = compared(family[0], SpectrumStore(tmp_path), scan=False)
    for one, other in zip(fresh, known, strict=True):
        assert one.ranks == other.ranks
        for pair, overlap in one.overlaps.items():
            if overlap.left is not None:
                assert overlap.left.value == pytest.approx(other.overlaps[pair].left.value, abs=1e-5)


def test_updates_too_large_to_be_held_together_are_read_one_by_one(family, known, monkeypatch):
    monkeypatch.setattr("dgviz.analysis.family.shared._TOGETHER", 0)
    again, _ = compared(*family, scan=False)
    assert [item.overlaps for item in again] == [item.overlaps for item in known]


def test_an_update_of_zero_has_no_directions_and_no_cosine(known):
    head = known[0]
    overlap = head.overlaps[0, 1]
    assert head.ranks == (0, 0, 0, 0) and overlap.left is overlap.right is None
    assert overlap.cosine is overlap.kept_cosine is None and overlap.norms == (0.0, 0.0)
    mean = means(known, (0, 1))
    assert (mean.weights, mean.compared) == (len(NAMES) + 1, len(NAMES))
    assert mean.cosine == pytest.approx(1)


def test_steps_of_one_run_share_their_directions(tmp_path):
    paths = write_family(
        tmp_path, **{f"step{n}": lambda i, n=n: update(100 + i, 200 + i, 300 + i + 50 * n, n) for n in (1, 2, 3)}
    )
    found, _ = compared(paths, SpectrumStore(tmp_path / "store"))
    for pair in ((0, 1), (1, 2), (0, 2)):
        mean = means(found, pair)
        assert mean.left.value > 0.99 and mean.right.value > 0.99 and mean.kept_cosine > 0.99
        assert mean.cosine < mean.kept_cosine  # their noise is not the same


def test_a_merged_lora_is_compared_by_the_directions_it_has(tmp_path):
    def lora(left, right):
        return lambda i: 1e-2 * directions(left + i, count=8) @ directions(right + i, COLS, 8).T

    paths = write_family(tmp_path, one=lora(100, 200), two=lora(100, 300), three=lora(400, 500))
    found, _ = compared(paths, SpectrumStore(tmp_path / "store"))
    assert found[1].ranks == (8, 8, 8)
    assert means(found, (0, 1)).left.value == pytest.approx(1, abs=1e-4)
    assert means(found, (0, 2)).left.value < 0.3


def test_rows_that_are_zero_throughout_are_not_part_of_what_chance_offers(tmp_path):
    def touching(rows, left, right):
        def change(i):
            whole = torch.zeros(ROWS, COLS)
            whole[rows] = directions(left + i, len(rows)) @ directions(right + i, COLS).T
            whole[rows] += 1e-2 * normal(i, len(rows), COLS)
            return whole

        return change

    low, high = list(range(40)), list(range(40, 96))
    paths = write_family(tmp_path, one=touching(low, 1, 20), two=touching(low, 40, 60), apart=touching(high, 80, 90))
    found, _ = compared(paths, SpectrumStore(tmp_path / "store"), plan=RepairPlan("fixed_rank", {"rank": RANK}))
    overlap = found[1].overlaps[0, 1]
    assert overlap.left.chance == pytest.approx(RANK / 40) and overlap.right.chance == pytest.approx(RANK / COLS)
    separate = found[1].overlaps[0, 2].left
    assert separate.chance == 0 and separate.value < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("size", "one", "other"), [(12, 1, 1), (12, 3, 5), (30, 4, 20), (8, 8, 3)])
def test_chance_is_what_random_subspaces_have(size, one, other):
    rng = np.random.default_rng(0)
    fixed = np.eye(size)[:, :one]
    bases = [np.linalg.qr(rng.standard_normal((size, other)))[0] for _ in range(4000)]
    found = np.array([np.sum((fixed.T @ basis) ** 2) / min(one, other) for basis in bases])
    mean, spread = chance_overlap((one, other), (size, size), size)
    assert (
        mean == pytest.approx(max(one, other) / size) == pytest.approx(found.mean(), abs=4 * found.std() / 60 + 1e-9)
    )
    assert spread == pytest.approx(found.std(), rel=0.08, abs=1e-9)


def test_chance_of_subspaces_that_live_in_different_rows():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4000):
        one, other = np.zeros((30, 3)), np.zeros((30, 2))
        one[:20] = np.linalg.qr(rng.standard_normal((20, 3)))[0]
        other[10:] = np.linalg.qr(rng.standard_normal((20, 2)))[0]
        found.append(np.sum((one.T @ other) ** 2) / 2)
    assert chance_overlap((3, 2), (20, 20), 10)[0] == pytest.approx(np.mean(found), rel=0.03)
    assert chance_overlap((3, 2), (20, 10), 0) == (0.0, 0.0)
    assert chance_overlap((1, 1), (1, 1), 1) == (1.0, 0.0)


def test_models_that_differ_are_compared_where_they_can_be_and_the_rest_is_named(family, tmp_path):
    paths, _ = family
    tensors = base_tensors()
    tensors = {key: value + 1e-3 * normal(9, *value.shape) for key, value in tensors.items()}
    del tensors[NAMES[0]]
    tensors[NAMES[1]] = tensors[NAMES[1]].to(torch.int64)
    strange = write_checkpoint(tmp_path / "strange", tensors, {"model_type": "synthetic"})
    pairs = [open_pair(paths[0], tuned) for tuned in (paths[1], strange, paths[4])]
    weights, apart = match_members(pairs)
    assert [weight.name for weight in weights] == [HEAD, *NAMES]
    assert weights[1].sides[1] is None and None not in weights[3].sides
    assert {item.weight: item.models for item in apart} == {NAMES[0]: (1,), NAMES[1]: (1,)}
    reasons = {item.weight: item.reason for item in apart}
    assert "Only in base" in reasons[NAMES[0]] and "Not floating point" in reasons[NAMES[1]]


def test_two_bases_are_no_family(family, tmp_path):
    other = write_checkpoint(tmp_path / "base", {k: v + 1 for k, v in base_tensors().items()}, {})
    with pytest.raises(PairError, match="a family has one base"):
        match_members([open_pair(family[0][0], family[0][1]), open_pair(other, family[0][2])])


def test_figures_are_those_of_the_weights_put_together(family):
    from safetensors.numpy import load_file

    paths, store = family
    compared(paths, store)
    spectra = read_spectra(open_pair(paths[0], paths[1]), store)
    rows = [assess(matrix, "dg_hard", {}) for matrix in spectra.weights]
    groups = groups_of(rows)
    assert list(groups) == ["all", "attention", "MLP", "head", "first third", "middle third", "last third",
                            "outside the layers"]  # fmt: skip
    base, tuned = (load_file(path / "model.safetensors") for path in paths[:2])
    deltas = {name: tuned[name].astype(float) - base[name] for name in NAMES}
    own = groups["attention"]
    names = [row.weight.tensor.name for row in own]
    size = math.sqrt(
        sum(np.sum(deltas[n] ** 2) for n in names) / sum(np.sum(base[n].astype(float) ** 2) for n in names)
    )
    assert FIGURES["relative_size"].pool(own) == pytest.approx(100 * size, rel=1e-5)
    assert FIGURES["rank"].pool(own) == 3 * RANK
    assert FIGURES["rank_share"].pool(own) == pytest.approx(100 * RANK / COLS)
    kept = [np.linalg.svd(deltas[n], compute_uv=False) ** 2 for n in names]
    energy = sum(s[:RANK].sum() for s in kept) / sum(s.sum() for s in kept)
    assert FIGURES["energy_kept"].pool(own) == pytest.approx(100 * energy, rel=1e-5)
    noise = np.mean([1 - s[:RANK].sum() / s.sum() for s in kept])
    assert FIGURES["noise_share"].pool(own) == pytest.approx(100 * noise, rel=1e-4)
    assert FIGURES["zero_share"].pool(groups["head"]) == 100 and FIGURES["energy_kept"].pool(groups["head"]) is None
    assert [len(layer) for layer in layers_of(rows, "model.layers").values()] == [2, 2, 2]
    report = member_report(rows)
    assert [group["weights"] for group in report["groups"]] == [7, 3, 3, 1, 2, 2, 2, 1]
    lines = family_csv([{"name": 'a, "b"', **report}]).splitlines()
    assert len(lines) == 9 and lines[1].startswith('"a, ""b""",all,7,')


def test_names_tell_checkpoints_apart():
    assert distinct_names(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    assert distinct_names(["a", "a"], "x, y") == ["x", "y"]
    with pytest.raises(PairError, match="1 names for 2"):
        distinct_names(["a", "b"], "x")
    with pytest.raises(PairError, match="one twice"):
        distinct_names(["a", "b"], "x,x")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_CACHE_DIR", str(tmp_path / "cache"))


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.slow
def test_the_command_scans_compares_and_goes_on_from_the_store(capsys, family, home, tmp_path):
    paths, save = family[0], tmp_path / "family.json"
    for tuned in paths[3:]:  # the first is left to the command, and its copy with it
        scan_here(open_pair(paths[0], tuned))
    arguments = ["family", *paths, "--names", "a,b,c,d", "--device", "cpu", "--workers", "1"]
    status, out, _ = run(capsys, *arguments, "--json", "--save", save)
    found = json.loads(out)
    assert status == 0 and json.loads(save.read_text()) == found
    assert [model["name"] for model in found["models"]] == ["a", "b", "c", "d"]
    assert all(model["missing"] == [] and model["verdict"]["verdict"] for model in found["models"])
    assert [pair["models"] for pair in found["overlap"]] == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert found["overlap"][0]["all"]["left"]["value"] == pytest.approx(1, abs=1e-6)
    assert [layer["layer"] for layer in found["overlap"][0]["layers"]] == ["0", "1", "2"]
    assert [row["name"] for row in found["weights"]] == [HEAD, *NAMES]
    assert found["not_compared"] == []
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and "left (chance)" in out and "a and b" in out
    status, out, _ = run(capsys, *arguments, "--csv")
    assert status == 0 and len(out.splitlines()) == 1 + 4 * 8


def test_one_tuned_checkpoint_is_no_family(capsys, family, home):
    status, _, err = run(capsys, "family", *family[0][:2])
    assert status == 2 and "at least two tuned checkpoints" in err


@pytest.mark.slow
def test_a_weight_that_fails_is_named_and_the_others_are_compared(capsys, family, home, tmp_path):
    tensors = base_tensors()
    tensors = {key: value + update(1, 2, 3) if key in NAMES else value for key, value in tensors.items()}
    tensors[NAMES[2]][0, 0] = float("nan")
    broken = write_checkpoint(tmp_path / "broken", tensors, {"model_type": "synthetic"})
    status, out, err = run(
        capsys, "family", family[0][0], family[0][1], broken, "--device", "cpu", "--workers", "1", "--json"
    )
    found = json.loads(out)
    assert status == 1 and f"broken: {NAMES[2]} failed" in err
    assert found["models"][1]["missing"] == [NAMES[2]]
    (left_out,) = found["not_compared"]
    assert left_out["weight"] == NAMES[2] and left_out["models"] == [1] and "finite" in left_out["reason"]
    assert found["overlap"][0]["all"]["weights"] == len(NAMES)
