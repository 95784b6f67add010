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


def write_tokenizer(directory: Path, words: list[str]) -> None:
    """Write a tokenizer like Llama 2's, made here: three special tokens, 256 bytes, and whole words."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = dict(zip(("unk_token", "bos_token", "eos_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)


def tiny_model(family: str, seed: int = 0) -> torch.nn.Module:
    """Build a tiny random transformers model of one of `FAMILIES` or `ARCHITECTURES`, without any download."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS[family.removesuffix("_fused")]().eval()


def write_llama(directory: Path, layers: int, hidden: int = 64) -> Path:
    """Save a random Llama whose update is large enough to have a bulk, by transformers itself."""
    settings = _TEXT | {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 2 * hidden}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _build("Llama", **settings).save_pretrained(directory)
    return directory


_SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_TEXT = _SIZES | _IDS | {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
_IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 40}


def _build(name: str, kind: str = "ForCausalLM", **settings: object) -> torch.nn.Module:
    import transformers as hf

    return getattr(hf, name + kind)(getattr(hf, name + "Config")(**settings))


def _build_clip() -> torch.nn.Module:
    text = {key: value for key, value in _TEXT.items() if key != "num_key_value_heads"}
    return _build("CLIP", "Model", text_config=text, vision_config=_IMAGE, projection_dim=32)


def _build_qwen2_vl() -> torch.nn.Module:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "mlp_ratio": 2}
    text = _TEXT | {"rope_parameters": rope}
    return _build("Qwen2VL", "ForConditionalGeneration", text_config=text, vision_config=vision)


_BUILDERS = {
    "llama_tied": lambda: _build("Llama", **_TEXT, tie_word_embeddings=True),
    "llama_untied": lambda: _build("Llama", **_TEXT, tie_word_embeddings=False),
    "qwen2": lambda: _build("Qwen2", **_TEXT),
    "qwen3": lambda: _build("Qwen3", **_TEXT, head_dim=8),
    "qwen3_moe": lambda: _build(
        "Qwen3Moe", **_TEXT | _EXPERTS | {"moe_intermediate_size": 24}, head_dim=8, num_experts=4
    ),
    "qwen2_moe": lambda: _build("Qwen2Moe", **_TEXT, **_EXPERTS, num_experts=4, shared_expert_intermediate_size=32),
    "mixtral": lambda: _build("Mixtral", **_TEXT, num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": lambda: _build(
        "GptOss", **_TEXT | {"intermediate_size": 32}, head_dim=8, num_local_experts=4, num_experts_per_tok=2
    ),
    "deepseek_v3": lambda: _build(
        "DeepseekV3",
        **_TEXT | {"num_key_value_heads": 4},
        **_EXPERTS,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "gpt2": lambda: _build(
        "GPT2", "LMHeadModel", vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=4, **_IDS
    ),
    "gemma3": lambda: _build(
        "Gemma3",
        "ForConditionalGeneration",
        text_config=_TEXT | {"head_dim": 8},
        vision_config=_IMAGE,
        mm_tokens_per_image=4,
    ),
    "llava": lambda: _build(
        "Llava",
        "ForConditionalGeneration",
        text_config=_TEXT | {"model_type": "llama"},
        vision_config=_IMAGE | {"model_type": "clip_vision_model"},
        image_token_index=95,
    ),
    "qwen2_vl": _build_qwen2_vl,
    "bert": lambda: _build("Bert", "ForMaskedLM", **_SIZES, intermediate_size=64, max_position_embeddings=64),
    "vit": lambda: _build("ViT", "ForImageClassification", **_IMAGE, num_labels=10),
    "clip": _build_clip,
    "whisper": lambda: _build(
        "Whisper",
        "ForConditionalGeneration",
        vocab_size=96,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=16,
        max_target_positions=32,
        decoder_start_token_id=1,
        **_IDS,
    ),
    "t5": lambda: _build(
        "T5",
        "ForConditionalGeneration",
        vocab_size=96,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    ),
    "mamba": lambda: _build("Mamba", vocab_size=96, hidden_size=32, state_size=8, num_hidden_layers=2, **_IDS),
}
ARCHITECTURES = tuple(_BUILDERS)
_OWN_INPUTS = {
    "vit": ("pixel_values",),
    "clip": ("input_ids", "pixel_values"),
    "whisper": ("input_features", "decoder_input_ids"),
    "t5": ("input_ids", "decoder_input_ids"),
}


def model_inputs(family: str) -> dict[str, torch.Tensor]:
    """Return random inputs for a tiny model: token ids, images of 16 x 16, sound of 16 bands."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 90, (2, 7), generator=generator)
    ids[:, -1] = 2
    every = {
        "input_ids": ids,
        "decoder_input_ids": ids,
        "pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
        "input_features": torch.randn(2, 16, 32, generator=generator),
    }
    return {name: every[name] for name in _OWN_INPUTS.get(family, ("input_ids",))}


def tune(model: torch.nn.Module, seed: int = 1, size: float = 1e-3) -> torch.nn.Module:
    """Add noise to every parameter, in place; return the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((size * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype))
    return model


def write_tiny_pair(
    directory: Path, family: str, sharded: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Path, Path]:
    """Save a tiny model as base, and the same with every matrix updated as tuned, by transformers itself."""
    model = tiny_model(family).to(dtype)
    # transformers holds experts as one 3-D stack; unless told otherwise it saves them one by one.
    options = {"save_original_format": False} if family.endswith("_fused") else {}
    options |= {"max_shard_size": "30KB"} if sharded else {}
    model.save_pretrained(directory / "base", **options)
    tune(model)
    model.save_pretrained(directory / "tuned", **options)
    return directory / "base", directory / "tuned"
