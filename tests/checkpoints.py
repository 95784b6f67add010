"""Small checkpoints on disk for the tests: synthetic tensors with planted spikes, and tiny transformers models."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

FAMILIES = ("llama_tied", "llama_untied", "gpt2", "qwen3_moe", "qwen3_moe_fused", "vit")


def write_checkpoint(
    directory: Path, tensors: dict[str, torch.Tensor], config: dict | None = None, shards: int = 1
) -> Path:
    """Write tensors as model.safetensors, or spread over that many shards with an index, and config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {}
        for i in range(shards):
            shard = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            names = list(tensors)[i::shards]
            save_file({name: tensors[name] for name in names}, directory / shard, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(names, shard)
        total = sum(tensor.nbytes for tensor in tensors.values())
        write_index(directory, weight_map, total)
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_index(directory: Path, weight_map: dict[str, str], total_size: int = 0) -> None:
    """Write model.safetensors.index.json."""
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def write_raw(file: Path, header: bytes | dict, data: bytes = b"", length: int | None = None) -> Path:
    """Write a safetensors file byte by byte, so that it can be wrong in any way."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return file


def random_tensors(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return one tensor of every kind: matrices, a kernel, an expert stack, vectors, a small matrix, a buffer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return (0.02 * torch.randn(shape, generator=generator)).to(dtype)

    return {
        "model.embed_tokens.weight": normal(96, 32),
        "model.layers.2.mlp.up.weight": normal(64, 32),
        "model.layers.10.mlp.up.weight": normal(64, 32),
        "model.layers.2.mlp.experts.gate_up_proj": normal(4, 48, 32),
        "model.conv.weight": normal(32, 3, 4, 4),
        "model.pos": normal(1, 40, 32),
        "model.norm.weight": normal(2048),
        "model.norm.column": normal(1, 2048, 1),
        "model.small.weight": normal(16, 16),
        "model.position_ids": torch.arange(2048).reshape(32, 64),
        "model.scalar": normal(),
    }


def planted_update(
    tensors: dict[str, torch.Tensor], seed: int = 1, rank: int = 3, noise: float = 1e-3
) -> dict[str, torch.Tensor]:
    """Return tensors with an update added to every floating one: `rank` strong directions per matrix, and noise."""
    generator = torch.Generator().manual_seed(seed)
    updated = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            updated[name] = tensor.clone()
            continue
        update = noise * torch.randn(tensor.shape, generator=generator)
        if tensor.dim() >= 2:
            rows, cols = tensor.shape[-2], tensor.shape[-1]
            spikes = torch.linspace(6, 12, rank) * noise * (rows**0.5 + cols**0.5)
            left = torch.linalg.qr(torch.randn(*tensor.shape[:-2], rows, min(rank, rows), generator=generator)).Q
            right = torch.linalg.qr(torch.randn(*tensor.shape[:-2], cols, min(rank, cols), generator=generator)).Q
            count = min(left.shape[-1], right.shape[-1])
            update += (left[..., :count] * spikes[:count]) @ right[..., :count].mT
        updated[name] = (tensor.float() + update).to(tensor.dtype)
    return updated


def write_pair(
    directory: Path, dtype: torch.dtype = torch.float32, shards: int = 1, config: dict | None = None
) -> tuple[Path, Path]:
    """Write `random_tensors` as base and their `planted_update` as tuned below a directory."""
    tensors = random_tensors(dtype=dtype)
    base = write_checkpoint(directory / "base", tensors, config, shards)
    return base, write_checkpoint(directory / "tuned", planted_update(tensors), config, shards)


def tiny_model(family: str, seed: int = 0) -> torch.nn.Module:
    """Build a tiny random transformers model of one of `FAMILIES`, without any download."""
    import transformers as hf

    sizes = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = sizes | {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    builders = {
        "llama_tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**llama, tie_word_embeddings=True)),
        "llama_untied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**llama, tie_word_embeddings=False)),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(
                vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
            )
        ),
        "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
            hf.Qwen3MoeConfig(
                **llama,
                head_dim=8,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=24,
                decoder_sparse_step=1,
            )
        ),
        "vit": lambda: hf.ViTForImageClassification(
            hf.ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                image_size=16,
                patch_size=4,
                num_labels=10,
            )
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builders[family.removesuffix("_fused")]().eval()


def write_tiny_pair(
    directory: Path, family: str, sharded: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Path, Path]:
    """Save a tiny model as base, and the same with every matrix updated as tuned, by transformers itself."""
    model = tiny_model(family).to(dtype)
    # transformers holds experts as one 3-D stack; unless told otherwise it saves them one by one.
    options = {"save_original_format": False} if family.endswith("_fused") else {}
    options |= {"max_shard_size": "30KB"} if sharded else {}
    model.save_pretrained(directory / "base", **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((1e-3 * noise).to(parameter.dtype))
    model.save_pretrained(directory / "tuned", **options)
    return directory / "base", directory / "tuned"
