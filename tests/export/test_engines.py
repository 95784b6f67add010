"""Inference engines read our exports as they read anybody's: their logits against those of transformers.

One small Llama with grouped queries, stored in bfloat16. What transformers computes in float32 on the same weights is
right; an engine may differ by what its own arithmetic rounds.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgviz.cli import main
from tests.checkpoints import planted_update, write_checkpoint, write_tokenizer
from tests.export.engines import PINS, logits, why_missing

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("ignore")]

PACKAGES = {"llama.cpp": "llama-cpp-python", "ctranslate2": "ctranslate2", "mlx-lm": "mlx-lm", "peft": ""}
"""By engine, its package in build/engines; PEFT is in every environment of the tests."""
EXACT = 1e-5
"""Share of the largest logit: sums of float32 in another order, through three layers."""
BFLOAT16 = 2e-2
"""The same where an engine rounds every activation to the 8 bits of bfloat16; of transformers itself that is 7e-3."""
FORMS = {"float32": ["--dtype", "float32"], "bfloat16": [], "bfloat16, sharded": [], "lora": ["--format", "lora"]}
CASES = {
    ("llama.cpp", "float32"): EXACT,
    ("llama.cpp", "bfloat16"): EXACT,
    ("llama.cpp", "bfloat16, sharded"): EXACT,
    ("llama.cpp", "lora"): EXACT,
    ("ctranslate2", "float32"): EXACT,
    ("ctranslate2", "bfloat16"): EXACT,
    ("ctranslate2", "bfloat16, sharded"): EXACT,
    ("mlx-lm", "float32"): EXACT,
    ("mlx-lm", "bfloat16"): BFLOAT16,
    ("mlx-lm", "bfloat16, sharded"): BFLOAT16,
    ("peft", "lora"): EXACT,
}
"""What each engine reads, and how far its logits may be off: CTranslate2 and mlx-lm load no PEFT adapters."""
TOKENS = [1, *range(260, 290), 300, 270, 265]
UPDATE = 0.1  # of the largest logit, at least: what the repair moves, so that none of it can be missing unseen


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One repair in every form."""
    directory = tmp_path_factory.mktemp("engines")
    base = write_base(directory / "base")
    tuned = dict(base)
    for number, name in enumerate(name for name in base if ".layers." in name and base[name].dim() == 2):
        tuned |= planted_update({name: base[name]}, seed=number, rank=1 + number % 5)
    config = json.loads((directory / "base" / "config.json").read_text())
    for shards in (1, 3):
        write_checkpoint(directory / f"tuned {shards}", tuned, config, shards)
    for form, options in FORMS.items():
        sides = [directory / "base", directory / ("tuned 3" if "sharded" in form else "tuned 1"), directory / form]
        assert main(["repair", *map(str, sides), *options]) == 0
    return directory


def write_base(directory: Path) -> dict[str, torch.Tensor]:
    """Save a Llama of three layers by transformers, with a tokenizer made here; return its tensors."""
    import transformers

    sizes = {"vocab_size": 320, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**sizes, **heads, **ids, max_position_embeddings=128)
        transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    write_tokenizer(directory, [f"▁word{number}" for number in range(320 - 259)])
    return load_file(directory / "model.safetensors")


@pytest.fixture(scope="module")
def right(written):
    """What transformers makes of every form in float32, by form; of an adapter, what it makes of its full weights."""
    found = {form: logits("transformers", written / form, TOKENS) for form in ("base", *FORMS) if form != "lora"}
    found["lora"] = found["float32"]
    assert difference(found["base"], found["float32"]) > UPDATE
    np.testing.assert_array_equal(found["bfloat16"], found["bfloat16, sharded"])
    return found


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest logit."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("engine", "form"), CASES)
def test_an_engine_computes_what_transformers_computes(written, right, capsys, engine, form):
    refuse_missing(capsys, engine, form)
    if form == "lora":
        found = logits(engine, written / "base", TOKENS, written / form)
    else:
        found = logits(engine, written / form, TOKENS)
    off = difference(found, right[form])
    say(capsys, engine, form, f"{off:.1e} | {CASES[engine, form]:.0e}")
    assert off <= CASES[engine, form]


def refuse_missing(capsys, engine: str, form: str) -> None:
    """Skip with the sentence why an engine is not installed; the table says so too."""
    if why := why_missing(PACKAGES[engine]):
        say(capsys, engine, form, f"skipped: {why} |")
        pytest.skip(why)


def say(capsys, engine: str, form: str, text: str) -> None:
    """Print a row of the table in docs/development/engines.md."""
    with capsys.disabled():
        print(f"\n| {PINS.get(PACKAGES[engine], engine)} | {form} | {text} |", end="")


def test_vllm_is_told_the_rank_that_it_needs(written):
    """Modules keep one to five directions; vLLM takes certain ranks only."""
    report = json.loads((written / "lora" / "dgviz.json").read_bytes())
    assert (
        report["loading"]
        == "every module has rank 5, 1 or more of it used, the rest zeros; vLLM needs --max-lora-rank 8"
    )


@pytest.mark.parametrize(("engine", "reads"), [("peft", True), ("llama.cpp", False)])
def test_ranks_by_module_would_be_scaled_wrongly(written, right, capsys, engine, reads):
    """The same adapter with PEFT's patterns instead of zeros, which llama.cpp does not know."""
    refuse_missing(capsys, engine, "lora, ranks by module")
    folder = written / f"patterns {engine}"
    folder.mkdir()
    tensors = load_file(written / "lora" / "adapter_model.safetensors")
    config = json.loads((written / "lora" / "adapter_config.json").read_bytes())
    for first in [name for name in tensors if name.endswith(".lora_A.weight")]:
        second = first.replace("lora_A", "lora_B")
        used = int((tensors[first].abs().sum(1) > 0).sum())
        tensors[first], tensors[second] = tensors[first][:used], tensors[second][:, :used].contiguous()
        module = first.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        config["rank_pattern"][module] = config["alpha_pattern"][module] = used
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    off = difference(logits(engine, written / "base", TOKENS, folder), right["lora"])
    say(capsys, engine, "lora, ranks by module", f"{off:.1e} |")
    assert (off <= EXACT) == reads
    assert reads or off > 0.01
