"""What is read of a pair the size of Llama 3.1 70B that lies on a web server: to inspect it, and of one weight.

The files have the real names, shapes and sizes, and holes instead of numbers, but for the one weight that is read:
they take no room. The server is on this machine, so the times are those of dgviz and not of a line.
"""

import contextlib
import io
import json
import math
import os
import tempfile
import time
from pathlib import Path

import torch

from dgviz.cli import main
from dgviz.words import size
from tests.checkpoint.places import WebServer

LAYERS, HIDDEN, MLP, KV, VOCABULARY, SHARDS = 80, 8192, 28672, 1024, 128256, 30
NAME = "model.layers.40.self_attn.k_proj.weight"


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors of Llama 3.1 70B."""
    found = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    attention = {
        "q_proj": (HIDDEN, HIDDEN),
        "k_proj": (KV, HIDDEN),
        "v_proj": (KV, HIDDEN),
        "o_proj": (HIDDEN, HIDDEN),
    }
    mlp = {"gate_proj": (MLP, HIDDEN), "up_proj": (MLP, HIDDEN), "down_proj": (HIDDEN, MLP)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{name}.weight": shape for name, shape in attention.items()}
        found |= {f"{at}.mlp.{name}.weight": shape for name, shape in mlp.items()}
        found |= {f"{at}.{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def write_holes(folder: Path, values: torch.Tensor) -> int:
    """Write a checkpoint of which only one weight has numbers; return its size."""
    folder.mkdir(parents=True)
    tensors = list(shapes().items())
    each = math.ceil(len(tensors) / SHARDS)
    weight_map, total = {}, 0
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        header, end = {}, 0
        for name, shape in tensors[number * each : (number + 1) * each]:
            begin, end = end, end + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            weight_map[name] = file
        raw = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(len(raw).to_bytes(8, "little") + raw)
            stream.truncate(8 + len(raw) + end)
            if NAME in header:
                stream.seek(8 + len(raw) + header[NAME]["data_offsets"][0])
                stream.write(values.view(torch.uint8).numpy().tobytes())
        total += 8 + len(raw) + end
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return total


def run() -> None:
    """Print what each command read, of how much."""
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"DGVIZ_CACHE_DIR": f"{name}/cache", "HF_HUB_OFFLINE": "0"}
        torch.manual_seed(0)
        base = torch.randn(KV, HIDDEN).mul_(0.02)
        tuned = base + 0.001 * torch.randn(KV, HIDDEN) + torch.randn(KV, 3) @ torch.randn(3, HIDDEN) / 500
        sides = {"base": base, "tuned": tuned}
        total = sum(write_holes(Path(name, "www", side), own.to(torch.bfloat16)) for side, own in sides.items())
        server = WebServer(Path(name, "www"))
        pair = [f"{server.address}/{side}" for side in sides]
        print(f"a pair of {size(total)}, {2 * len(shapes())} tensors, {2 * SHARDS} files\n")
        print("| command | bytes read | of the pair | requests | s |\n|---|---|---|---|---|")
        for words in (["inspect", *pair], ["inspect", *pair], ["spectrum", *pair, NAME], ["spectrum", *pair, NAME]):
            read, asked, started = server.total, len(server.requests), time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                assert main(words) == 0
            seconds, read = time.perf_counter() - started, server.total - read
            figures = f"{size(read)} | 1/{total // max(read, 1):,} | {len(server.requests) - asked} | {seconds:.1f}"
            print(f"| {words[0]}{' of one weight' if len(words) > 3 else ''} | {figures} |", flush=True)
        print(f"\nthe weight itself is {size(2 * 2 * KV * HIDDEN)} on both sides")
        server.close()


if __name__ == "__main__":
    run()
