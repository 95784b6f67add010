"""Selections: the expression finds exactly what was chosen, whatever the names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgviz.checkpoint.selection import Selection, expression_of, number_expression, selection_of
from dgviz.errors import PairError

DENSE = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{i}.{module}.weight"
        for i in range(24)
        for module in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
    ),
    "lm_head.weight",
]
EXPERTS = [
    *(f"model.layers.{i}.mlp.experts.{e}.{m}.weight" for i in range(3) for e in range(12) for m in ("w1", "w2")),
    *(f"model.layers.{i}.mlp.experts.gate_up_proj" for i in range(3, 6)),
    *(f"model.layers.{i}.self_attn.q_proj.weight" for i in range(6)),
]
BLOCKS = [
    *(f"down_blocks.{i}.attentions.{j}.transformer_blocks.0.attn1.to_q.weight" for i in range(3) for j in range(2)),
    *(f"down_blocks.{i}.resnets.{j}.conv1.weight" for i in range(3) for j in range(2)),
    "mid_block.resnets.0.conv1.weight",
    "conv_in.weight",
    "a.+b?.weight",
]


@given(st.sets(st.integers(0, 1200), min_size=1, max_size=60))
def test_numbers_and_no_others(numbers):
    found = re.compile(number_expression(numbers))
    assert {n for n in range(1300) if found.fullmatch(str(n))} == numbers


@pytest.mark.parametrize("names", [DENSE, EXPERTS, BLOCKS], ids=["dense", "experts", "blocks"])
@given(data=st.data())
def test_exactly_the_chosen(names, data):
    chosen = data.draw(st.sets(st.sampled_from(names)))
    assert set(selection_of(names, chosen).select(names)) == chosen
    if chosen:
        assert set(Selection(include=expression_of(names, sorted(chosen))).select(names)) == chosen


@pytest.mark.parametrize(
    ("choose", "selection"),
    [
        (lambda name: True, Selection()),
        (lambda name: False, Selection(exclude="^")),
        (lambda name: ".layers.3." in name, Selection(include=r"^model\.layers\.3\.")),
        (lambda name: "layers" in name, Selection(include=r"^model\.layers\.")),
        (lambda name: "q_proj" in name, Selection(include=r"^model\.layers\.\d+\.self_attn\.q_proj\.weight$")),
        (lambda name: re.search(r"layers\.1\d\.", name), Selection(include=r"^model\.layers\.1[0-9]\.")),
        (lambda name: name != "lm_head.weight", Selection(exclude=r"^lm_head\.weight$")),
        (
            lambda name: re.search(r"layers\.[45]\.mlp", name),
            Selection(include=r"^model\.layers\.[45](?:\.mlp\.up_proj|\.mlp\.down_proj)\.weight$"),
        ),
    ],
)
def test_what_people_choose_is_short(choose, selection):
    assert selection_of(DENSE, [name for name in DENSE if choose(name)]) == selection


def test_all_experts_of_a_layer_are_one_term():
    chosen = [name for name in EXPERTS if name.startswith("model.layers.1.mlp.experts.") and "w1" in name]
    assert selection_of(EXPERTS, chosen).include == r"^model\.layers\.1\.mlp\.experts\.\d+\.w1\.weight$"


def test_selections_agree_with_the_pair(tmp_path):
    from dgviz.checkpoint import open_pair
    from tests.checkpoints import write_pair

    paths = write_pair(tmp_path)
    names = [paired.name for paired in open_pair(*paths).repairable]
    selection = selection_of(names, [name for name in names if "layers.10" in name or "embed" in name])
    pair = open_pair(*paths, include=selection.include, exclude=selection.exclude)
    assert [paired.name for paired in pair.repairable] == selection.select(names)


def test_a_bad_expression_is_a_sentence():
    with pytest.raises(PairError, match=r"--include: '\(' is not a regular expression of RE2"):
        Selection(include="(").select(["a"])


def test_an_expression_of_a_link_takes_no_time():
    """Backtracking would need longer than anyone lives; RE2 is linear."""
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(200)]
    assert Selection(include=r"(\w+\.?)+!$").select(names) == []
    assert Selection(exclude=r"^(([a-z0-9_])+.)+[A-Z]([a-z])+$").select(names) == names
