"""The small models: architectures of transformers with random weights, and their checkpoints on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dgviz.demo.evaluation import quiet_transformers

if TYPE_CHECKING:
    import torch
    from torch import nn

_WIDTH = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_DEEPER = {"num_hidden_layers": 6}
_WIDER = {"hidden_size": 384, "num_attention_heads": 6} | _DEEPER
_NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}
_NO_MARKS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
_DIGITS = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}


def build_model(architecture: str, seed: int) -> "nn.Module":
    """Return a model with random weights in float32: 0.2 to 0.5 million, or as many as its name says."""
    import torch
    import transformers as hf

    makers = {
        "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**_DIGITS, **_WIDTH, intermediate_size=256)),
        "convnext": lambda: hf.ConvNextForImageClassification(
            hf.ConvNextConfig(**_DIGITS, num_stages=2, hidden_sizes=[64, 128], depths=[2, 2])
        ),
        "llama": lambda: _llama(_WIDTH, 384),
        "llama6": lambda: _llama(_WIDTH | _DEEPER, 384),
        "llama10m": lambda: _llama(_WIDER, 1024),
        "gpt2": lambda: _gpt2(_WIDTH),
        "gpt10m": lambda: _gpt2(_WIDER),
        "gpt6": lambda: _gpt2(_WIDTH | _DEEPER),
        "bert": lambda: _bert(_WIDTH),
        "bert6": lambda: _bert(_WIDTH | _DEEPER),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return makers[architecture]()


def _llama(size: Mapping[str, int], inner: int) -> "nn.Module":
    """Return a Llama of bytes with random weights."""
    import transformers as hf

    lengths = {"vocab_size": 256, "intermediate_size": inner, "max_position_embeddings": 128}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**size, **lengths, **_NO_TOKENS))


def _gpt2(size: Mapping[str, int]) -> "nn.Module":
    """Return a GPT-2 of bytes with random weights."""
    import transformers as hf

    lengths = {"vocab_size": 256, "n_positions": 128}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**size, **lengths, **_NO_TOKENS))


def _bert(size: Mapping[str, int]) -> "nn.Module":
    """Return a ModernBERT of bytes, and a token for gaps, with random weights."""
    import transformers as hf

    lengths = {"vocab_size": 257, "intermediate_size": 256, "global_attn_every_n_layers": 1}
    return hf.ModernBertForMaskedLM(hf.ModernBertConfig(**size, **_NO_MARKS, **lengths))


def load_model(folder: Path, tensors: "Mapping[str, torch.Tensor] | None" = None) -> "nn.Module":
    """Return a checkpoint as transformers loads it, in float32, ready to be asked; with other tensors if given."""
    import torch
    import transformers as hf

    with quiet_transformers():
        config = hf.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = getattr(hf, config.architectures[0])
        found = {"config": config, "state_dict": tensors} if tensors else {"local_files_only": True}
        return kind.from_pretrained(None if tensors else folder, dtype=torch.float32, **found).eval()


def save_model(model: "nn.Module", folder: Path, dtype: str) -> None:
    """Write a checkpoint in a dtype; the model keeps its own."""
    import copy

    import torch

    with quiet_transformers():
        copy.deepcopy(model).to(getattr(torch, dtype)).save_pretrained(folder)
