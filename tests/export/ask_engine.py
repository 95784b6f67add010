"""Logits of one engine, run by the Python of build/engines: ENGINE MODEL OUT TOKENS [ADAPTER]; knows no dgviz."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def ask_llama(model: Path, tokens: list[int], adapter: Path | None) -> np.ndarray:
    """Convert to GGUF by llama.cpp's own converters, to float32, and compute on the CPU."""
    import llama_cpp

    converters = Path(os.environ["DGVIZ_LLAMA"]) / "vendor" / "llama.cpp"
    file = model.with_suffix(".gguf")
    convert = [sys.executable, converters / "convert_hf_to_gguf.py", model, "--outfile", file, "--outtype", "f32"]
    subprocess.run(convert, check=True)
    options = {}
    if adapter:
        options["lora_path"] = str(adapter.with_suffix(".gguf"))
        convert = [
            sys.executable,
            converters / "convert_lora_to_gguf.py",
            adapter,
            "--base",
            model,
            "--outtype",
            "f32",
        ]
        subprocess.run([*convert, "--outfile", options["lora_path"]], check=True)
    # The cache of keys and values is float16 unless it is asked otherwise.
    options |= {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    engine = llama_cpp.Llama(str(file), n_ctx=len(tokens), logits_all=True, verbose=False, **options)
    engine.eval(tokens)
    return np.array(engine.scores[: len(tokens)])


def ask_ctranslate2(model: Path, tokens: list[int], adapter: Path | None) -> np.ndarray:
    """Convert by CTranslate2's own converter, to float32, and compute on the CPU."""
    import ctranslate2

    converted = model.with_suffix(".ct2")
    ctranslate2.converters.TransformersConverter(str(model)).convert(str(converted), quantization="float32")
    engine = ctranslate2.Generator(str(converted), compute_type="float32")
    return np.array(engine.forward_batch([tokens]))[0]


def ask_mlx(model: Path, tokens: list[int], adapter: Path | None) -> np.ndarray:
    """Load as mlx-lm does, and compute in the dtype of the checkpoint."""
    import mlx.core as mx
    from mlx_lm import load

    engine, _ = load(str(model))
    return np.array(engine(mx.array([tokens]))[0].astype(mx.float32))


def ask_transformers(model: Path, tokens: list[int], adapter: Path | None) -> np.ndarray:
    """Compute in float32; an adapter is PEFT's to load."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        engine = PeftModel.from_pretrained(engine, adapter)
    with torch.inference_mode():
        return engine(torch.tensor([tokens])).logits[0].numpy()


ASK = {"llama.cpp": ask_llama, "ctranslate2": ask_ctranslate2, "mlx-lm": ask_mlx}
ASK |= {"transformers": ask_transformers, "peft": ask_transformers}

if __name__ == "__main__":
    name, model, out, tokens, *adapters = sys.argv[1:]
    adapter = Path(adapters[0]) if adapters else None
    np.save(out, ASK[name](Path(model), [int(token) for token in tokens.split(",")], adapter).astype(np.float32))
