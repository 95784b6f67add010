"""Checkpoints with one damaged file: whatever is wrong in it, opening the pair works or says so in one line."""

import json
import os
import random
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgviz.checkpoint import open_pair, read_tensor
from dgviz.errors import DgvizError
from dgviz.spectra.weight import Weight
from tests.checkpoint.test_adapter import UP, factors, write_adapter
from tests.checkpoint.test_lora_files import SHAPES, write_lora
from tests.checkpoint.test_quantised import FP8, float8_blocks
from tests.checkpoints import random_tensors, tiny_model, tune, write_checkpoint

ODD = [None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 1.5, 1e308, float("inf"), "", "\x00", "../x", "é", [], {}, [[]]]
ODD += ["weight", "F64", "model.safetensors", "llama", "bert", "(", "[[", "LORA", {"a": 1}, [0, 8], [1, 2, 3], "fp8"]


KINDS = "adapter", "kohya", "mlx-lm", "float8", "renamed"


def write_pairs(directory) -> None:
    """Write one pair of every kind whose files are then damaged."""
    tensors = random_tensors()
    grown = tensors | {"model.embed_tokens.weight": torch.randn(104, 32)}
    base = write_checkpoint(directory / "sharded" / "base", tensors, {"vocab_size": 96, "model_type": "llama"}, 2)
    tuned = write_checkpoint(directory / "sharded" / "tuned", grown, {"vocab_size": 104, "model_type": "llama"}, 2)
    for path, count in ((base, 96), (tuned, 104)):
        vocabulary = {f"w{number}": number for number in range(count)}
        (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    write_checkpoint(directory / "adapter" / "base", tensors, {"model_type": "llama"})
    write_adapter(directory / "adapter" / "tuned", {UP: factors(64, 32)}, {"alpha_pattern": {"up": 3}})
    codes, scales = float8_blocks(tensors[f"{UP}.weight"], 16, 8)
    quantised = tensors | {f"{UP}.weight": codes, f"{UP}.weight_scale_inv": scales}
    write_checkpoint(directory / "float8" / "base", quantised, FP8)
    write_checkpoint(directory / "float8" / "tuned", tensors, {})
    for kind in ("kohya", "mlx-lm"):
        weights = {f"{module}.weight": torch.randn(shape) for module, shape in SHAPES.items()}
        write_checkpoint(directory / kind / "base", weights)
        (directory / kind / "tuned").mkdir()
        write_lora(directory / kind / "tuned", kind)
    model = tiny_model("mixtral")
    model.save_pretrained(directory / "renamed" / "base", save_original_format=True)
    tune(model).save_pretrained(directory / "renamed" / "tuned", save_original_format=False)


def nodes(value, path=()):
    """Yield the path of every value inside a JSON document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from nodes(child, (*path, key))


def damage_json(document, choose: random.Random):
    """Replace, remove, repeat or rename something in a document."""
    path = choose.choice(list(nodes(document)))
    if not path:
        return choose.choice(ODD)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    what = choose.randrange(4)
    if what == 0:
        del parent[path[-1]]
    elif what == 1 and isinstance(parent, dict):
        parent[str(choose.choice(ODD))] = parent.pop(path[-1])
    elif what == 2 and isinstance(parent[path[-1]], int):
        parent[path[-1]] += choose.choice([-1, 1, 8, 2**16])
    else:
        parent[path[-1]] = choose.choice(ODD)
    return document


def damage(file, choose: random.Random) -> None:
    """Damage one file: its JSON, the JSON of its header, or a few of its bytes."""
    raw = file.read_bytes()
    header = file.suffix == ".safetensors"
    start = 8 if header else 0
    end = 8 + int.from_bytes(raw[:8], "little") if header else len(raw)
    if choose.random() < 0.7:
        text = json.dumps(damage_json(json.loads(raw[start:end]), choose)).encode()
        file.write_bytes((len(text).to_bytes(8, "little") if header else b"") + text + raw[end:])
        return
    data = bytearray(raw)
    for _ in range(choose.randrange(1, 4)):
        position = choose.randrange(end + 1)
        data[position : position + choose.choice([0, 1, 1, 1, 5])] = choose.randbytes(choose.choice([0, 1, 1, 3]))
    file.write_bytes(data[: choose.choice([None, None, None, end // 2])])


def open_damaged(directory, seed: int) -> str:
    """Damage one file of one pair, open it and read a matrix; return what was said, empty if it opened."""
    choose = random.Random(seed)
    kind = choose.choice(["sharded", "sharded", *KINDS])
    work = directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(directory / kind, work)
    damage(choose.choice(sorted(file for file in work.rglob("*") if file.is_file())), choose)
    try:
        pair = open_pair(work / "base", work / "tuned")
        paired = choose.choice(pair.repairable)
        weight = Weight(paired, 0 if len(paired.tuned.shape) == 3 else None)
        assert read_tensor(weight.base).numel() == read_tensor(weight.tuned).numel() == weight.parameters
    except DgvizError as error:
        assert str(error) and "\n" not in str(error)
        return str(error)
    return ""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    write_pairs(directory)
    for kind in ("sharded", *KINDS):
        assert open_pair(directory / kind / "base", directory / kind / "tuned").repairable
    return directory


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_damaged_pair_opens_or_is_refused_in_one_line(pairs, seed):
    open_damaged(pairs, seed)


def test_damage_is_seen(pairs):
    """The damage done here matters: a good part of it is refused, and a part harms nothing."""
    said = [open_damaged(pairs, seed) for seed in range(40)]
    assert 5 < sum(map(bool, said)) < 40 and len(set(said)) > 5


@pytest.mark.soak
def test_damaged_pairs_for_long(pairs):
    """20,000 inputs, or DGVIZ_FUZZ_INPUTS; memory may not grow by more than a model's classes."""
    import psutil

    process = psutil.Process()
    for seed in range(200):
        open_damaged(pairs, seed)
    before, count = process.memory_info().rss, int(os.environ.get("DGVIZ_FUZZ_INPUTS", "20000"))
    refused = sum(bool(open_damaged(pairs, 2**33 + number)) for number in range(count))
    print(f"{count} inputs, {refused} refused")
    assert process.memory_info().rss < before + 2**29
