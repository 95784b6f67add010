"""One direction into the plan, and what is selected on the map as an override selects it."""

import pytest
import torch

from dgviz.analysis.direction import leading_count
from dgviz.analysis.lens import read_directions
from dgviz.app import answers
from dgviz.app.direction import directed, lens_or_reason
from dgviz.app.layer_plan import selection_of
from dgviz.checkpoint import open_pair, read_tensor
from dgviz.checkpoint.selector import Selector
from dgviz.errors import PlanError, SpectrumError
from dgviz.repair.overrides import Override
from dgviz.spectra.open_weight import OpenWeight
from dgviz.spectra.weight import find_weight, matrices_of
from tests.analysis.test_lens import LLAMA, write_model
from tests.checkpoints import planted_update, write_checkpoint, write_pair

NAME = "name=model.layers.2.mlp.up.weight"


@pytest.mark.parametrize(
    ("before", "number", "decision", "after"),
    [
        ("", 7, "keep", f"{NAME}: keep_directions=7"),
        ("", 7, "drop", f"{NAME}: drop_directions=7"),
        (f"{NAME}: keep_directions=3+5", 4, "keep", f"{NAME}: keep_directions=3-5"),
        (f"{NAME}: keep_directions=3+5", 3, "drop", f"{NAME}: keep_directions=5, drop_directions=3"),
        (f"{NAME}: keep_directions=3", 3, "leave", None),
        (f"{NAME}: tau=0.02, drop_directions=1", 1, "leave", f"{NAME}: tau=0.02"),
        ("layers=2: factor=0.5", 2, "drop", f"{NAME}: factor=0.5, drop_directions=2"),
    ],
)
def test_a_decision_joins_what_decides_of_the_weight_so_far(before, number, decision, after):
    override = Override.parse(before) if before else None
    assert directed(override, NAME, number, decision) == after


def test_a_side_taken_whole_has_no_directions():
    with pytest.raises(PlanError, match="takes tuned's values whole"):
        directed(Override.parse("layers=2: keep=tuned"), NAME, 1, "drop")


def test_what_is_selected_is_told_in_the_shortest_words(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    names = [tensor.name for tensor in pair.repairable]
    ups = [name for name in names if name.endswith("mlp.up.weight")]
    second = [name for name in names if ".layers.2." in name]
    odd = [ups[0], next(name for name in names if "embed" in name)]
    texts = {
        "name=" + ups[0]: ups[:1],
        "module=mlp.up": ups,
        "layers=2": second,
        f"re=^({odd[0]}|{odd[1]})$".replace(".", r"\."): odd,
    }
    for text, chosen in texts.items():
        found = selection_of(pair, chosen)
        assert found.text == text and set(found.names) == set(chosen)
        assert {tensor.name for tensor in pair.repairable if Selector(text).finds(tensor)} == set(chosen)
    layered = [name for name in names if ".layers." in name]
    assert selection_of(pair, layered).text.startswith("layers=2")
    assert selection_of(pair, ["gone"]) is None and selection_of(pair, []) is None


def test_the_worker_compares_a_direction_with_base_and_with_other_updates(tmp_path):
    pair = open_pair(*write_pair(tmp_path))
    (weight,) = matrices_of(pair["model.layers.2.mlp.up.weight"])
    base, tuned = (read_tensor(side).double() for side in (weight.base, weight.tuned))
    u, s, vh = torch.linalg.svd(tuned - base, full_matrices=False)
    found = answers.direction(weight, "cpu", 2)
    assert found.s == pytest.approx(float(s[1]), rel=1e-5)
    assert found.energy == pytest.approx(float(s[1] ** 2 / (s**2).sum()), rel=1e-5)
    assert [row for row, _ in found.rows] == torch.argsort(-(u[:, 1] ** 2))[:10].tolist()

    aligned = answers.alignments(weight, "cpu", 2, {"the same": weight})
    left, _, right = torch.linalg.svd(base, full_matrices=False)
    k = leading_count(tuple(base.shape))
    inside = float(((left[:, :k].T @ u[:, 1]) ** 2).sum()), float(((right[:k] @ vh[1]) ** 2).sum())
    assert aligned.base.leading == k
    assert (aligned.base.left.share, aligned.base.right.share) == pytest.approx(inside, abs=1e-4)
    same = aligned.others["the same"]
    for side in (same.left, same.right):
        assert (side.nearest, side.cosine, side.share) == (2, pytest.approx(1, abs=1e-4), pytest.approx(1, abs=1e-4))
    with pytest.raises(SpectrumError, match="singular value of zero"):
        still = torch.zeros(40, 40), torch.diag(torch.tensor([1.0] + 39 * [0.0]))
        paths = [write_checkpoint(tmp_path / side, {"w": w}) for side, w in zip(("b", "t"), still, strict=True)]
        answers.direction(matrices_of(open_pair(*paths)["w"])[0], "cpu", 30)


def test_the_worker_reads_a_direction_through_the_vocabulary(tmp_path):
    pair = write_model(tmp_path, update=[LLAMA[0]])
    weight = find_weight(pair, "model.layers.0.mlp.down_proj.weight")
    lens, why = lens_or_reason("stamp", weight.name, 1, pair, weight)
    assert not why
    found = answers.reading(weight, "cpu", 1, lens, "stamp")
    assert found == read_directions(pair.base, OpenWeight(weight, "cpu"), [1])[0]


def test_a_page_says_why_a_weight_is_not_read_and_nothing_where_there_are_no_tokens(tmp_path):
    pair = write_model(tmp_path / "model")
    between = find_weight(pair, "model.layers.0.self_attn.q_b_proj.weight")
    lens, why = lens_or_reason("model", between.name, 1, pair, between)
    assert lens is None and why.startswith("It is not known that model.layers.0.self_attn.q_b_proj.weight")
    base = {"blocks.0.fc1.weight": torch.randn(64, 32)}
    write_checkpoint(tmp_path / "tuned", planted_update(base))
    pair = open_pair(write_checkpoint(tmp_path / "base", base), tmp_path / "tuned")
    assert lens_or_reason("none", "w", 1, pair, find_weight(pair, "blocks.0.fc1.weight")) == (None, "")
