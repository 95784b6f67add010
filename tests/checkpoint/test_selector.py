"""Tensors named in a few words."""

from types import SimpleNamespace

import pytest

from dgviz.checkpoint.selector import Selector
from dgviz.errors import DgvizError, PairError

NAMES = [f"model.layers.{layer}.{path}" for layer in (1, 2, 10, 11) for path in ("mlp.up_proj.weight", "norm.weight")]
NAMES += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.layers.1.mlp.experts.down_proj"]
STAGES = [f"encoder.layers.{stage}.blocks.{block}.attn.weight" for stage in (0, 1) for block in (0, 1, 2)]


def tensor(name, *aliases):
    return SimpleNamespace(name=name, aliases=aliases)


def found(text, names=tuple(NAMES)):
    selector = Selector(text)
    return [name for name in names if selector.finds(tensor(name))]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model.norm.weight", ["model.norm.weight"]),
        ("name=model.norm.weight", ["model.norm.weight"]),
        ("name=model.norm", []),
        ("layers.1", [name for name in NAMES if ".layers.1." in name]),
        ("module=layers.1.mlp", [name for name in NAMES if ".layers.1.mlp." in name]),
        ("layers=2-10", [name for name in NAMES if ".layers.2." in name or ".layers.10." in name]),
        ("layers=1,11", [name for name in NAMES if ".layers.1." in name or ".layers.11." in name]),
        ("up_proj", [name for name in NAMES if "up_proj" in name]),
        ("up", []),
        (r"re=^model\.layers\.1\d\..*up", [name for name in NAMES if ".layers.1" in name and "up" in name][1:]),
        ("model.layers.1.mlp.experts.down_proj[3]", ["model.layers.1.mlp.experts.down_proj"]),
    ],
)
def test_what_a_text_names(text, wanted):
    assert found(text) == wanted


def test_layers_of_stages_have_several_numbers():
    assert found("layers=0", STAGES) == STAGES[:3]
    assert found("layers=0.1-1.0", STAGES) == STAGES[1:4]


def test_a_tied_tensor_is_found_by_either_name():
    head = tensor("lm_head.weight", "model.embed_tokens.weight")
    assert Selector("embed_tokens").finds(head) and Selector("lm_head").finds(head)
    assert not Selector("mlp").finds(head)


def test_one_matrix_of_a_stack():
    selector = Selector("model.layers.1.mlp.experts.down_proj[3]")
    stack = tensor("model.layers.1.mlp.experts.down_proj")
    assert selector.index == 3 and selector.covers(stack, 3)
    assert not selector.covers(stack, 2) and not selector.covers(stack, None)
    assert Selector("experts").covers(stack, 2) and Selector("experts").covers(stack, None)


@pytest.mark.parametrize("text", ["", "name=", "layers=", "layers=7-3", "layers=a", "re=(", "re=(?=a)b", r"re=(a)\1"])
def test_what_names_nothing_is_refused(text):
    with pytest.raises(PairError, match="."):
        Selector(text)


def test_an_expression_takes_linear_time():
    assert Selector("re=(a|a)*(a|a)*(a|a)*b$").finds(tensor("a" * 100_000)) is False


def test_names_that_resemble_one():
    tensors = [tensor(name) for name in NAMES]
    assert "model.norm.weight" in Selector("model.nrom.weight").near(tensors)
    assert "layers.2" in Selector("layers.3").near(tensors)
    assert Selector("layers=20-30").near(tensors) == ["layers=2", "layers=10", "layers=11"]
    assert issubclass(PairError, DgvizError)


@pytest.mark.parametrize("text", ["layers=1", "re=norm", "module=mlp", "name=model.norm.weight", "up_proj"])
def test_not_is_everything_else(text):
    assert found(text) and found(f"not {text}") == [name for name in NAMES if name not in found(text)]


@pytest.mark.parametrize("text", ["not name=a[3]", "not ", "not re=(", "not layers=b"])
def test_not_stands_before_a_selection_of_whole_tensors(text):
    with pytest.raises(PairError):
        Selector(text)
