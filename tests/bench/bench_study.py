"""A study on paper: what `plan` foretells for models of 1B to a trillion parameters, on one machine and on eight.

The checkpoints have the real shapes and holes instead of numbers. A CPU core is the one at hand, measured; an H100 is
from its data sheet, and nothing was run on one.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

from dgviz.analysis.cost import plan_costs
from dgviz.checkpoint import inspect_pair
from dgviz.words import duration, size

# Layers, hidden, MLP, rows of k and v, vocabulary, experts of a layer: Llama 3.2 and 3.1; the last as Kimi K2.
MODELS = {
    "1B": (16, 2048, 8192, 512, 128256, 0),
    "8B": (32, 4096, 14336, 1024, 128256, 0),
    "70B": (80, 8192, 28672, 1024, 128256, 0),
    "405B": (126, 16384, 53248, 1024, 128256, 0),
    "1T MoE": (61, 7168, 2048, 1024, 163840, 384),
}
PLACES = {  # processor, workers, machines, bytes a second and machine
    "16 CPU cores": ("cpu", 16, 1, 1e9),
    "one H100": ("h100", 1, 1, 2e9),
    "eight H100": ("h100", 8, 1, 4e9),
    "eight machines of eight": ("h100", 8, 8, 4e9),
}


def shapes(layers: int, hidden: int, mlp: int, kv: int, vocabulary: int, experts: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a model."""
    found = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{name}_proj.weight": (hidden, hidden) for name in "qo"}
        found |= {f"{at}.self_attn.{name}_proj.weight": (kv, hidden) for name in "kv"}
        for part in [f"{at}.mlp.experts.{number}" for number in range(experts)] or [f"{at}.mlp"]:
            found |= {f"{part}.{name}_proj.weight": (mlp, hidden) for name in ("gate", "up")}
            found[f"{part}.down_proj.weight"] = hidden, mlp
        found |= {f"{at}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def write_holes(folder: Path, tensors: dict[str, tuple[int, ...]], shard_bytes: float = 5e9) -> None:
    """Write a bfloat16 checkpoint in its full size without its numbers."""
    folder.mkdir(parents=True)
    groups, filled = [{}], 0.0
    for name, shape in tensors.items():
        nbytes = 2 * math.prod(shape)
        if groups[-1] and filled + nbytes > shard_bytes:
            groups, filled = [*groups, {}], 0.0
        groups[-1][name], filled = shape, filled + nbytes
    weight_map = {}
    for number, group in enumerate(groups, 1):
        file, header, end = f"model-{number:05}-of-{len(groups):05}.safetensors", {}, 0
        for name, shape in group.items():
            begin, end = end, end + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            weight_map[name] = file
        raw = json.dumps(header).encode()
        with (folder / file).open("wb") as stream:
            stream.write(len(raw).to_bytes(8, "little") + raw)
            stream.truncate(8 + len(raw) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))


def run(models: list[str]) -> None:
    """Print the table."""
    print("| model | matrices | pair | on | scan | repair after it | memory of a machine | read | written |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in models or MODELS:
        with tempfile.TemporaryDirectory() as name:
            sides = [Path(name, side) for side in ("base", "tuned")]
            for side in sides:
                write_holes(side, shapes(*MODELS[model]))
            pair = inspect_pair(*sides)
            for place, settings in PLACES.items():
                _, scan, repair, _ = plan_costs(pair, *settings).stages
                times = f"{duration(scan.seconds)} | {duration(repair.seconds)}"
                figures = f"{size(scan.memory)} | {size(repair.read)} | {size(repair.written)}"
                about = f"{model} | {len(pair.repairable):,} | {size(pair.base.nbytes + pair.tuned.nbytes)}"
                print(f"| {about} | {place} | {times} | {figures} |", flush=True)


if __name__ == "__main__":
    run(sys.argv[1:])
