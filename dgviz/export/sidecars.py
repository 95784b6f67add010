"""The files of a model beside its weights: which are carried into an output, from where, and which never are."""

from pathlib import Path

from dgviz.checkpoint import CheckpointPair
from dgviz.checkpoint.documents import refuse_stray_link

# What transformers and vLLM read besides weights. Never copied: trainer state, an old index, a README.
_ALWAYS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "sentencepiece*.model",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "feature_extractor_config.json",
    "LICENSE*",
    "NOTICE*",
)
_BESIDE_AN_ADAPTER = ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
_BESIDE_AN_ADAPTER += ("spiece.model", "sentencepiece*.model", "tekken.json", "chat_template*", "LICENSE*", "NOTICE*")
_CODE = "*.py"
_NEVER = (".py", ".safetensors", ".bin", ".pt", ".pth")


def find_sidecars(
    pair: CheckpointPair, output: str = "full", allow_code: bool = False
) -> tuple[tuple[tuple[str, str, Path], ...], tuple[str, ...]]:
    """Return the other files a model needs, from tuned, or from base where tuned has none of that kind."""
    if output == "factors":
        return (), ()
    found: list[tuple[str, str, Path]] = []
    warnings: list[str] = []
    patterns = _ALWAYS if output == "full" else _BESIDE_AN_ADAPTER
    for pattern in (*patterns, _CODE) if allow_code else patterns:
        for side, checkpoint in (("tuned", pair.tuned), ("base", pair.base)):
            files = [path for path in sorted(checkpoint.path.glob(pattern)) if _is_sidecar(path, pattern == _CODE)]
            if files:
                found += [(path.relative_to(checkpoint.path).as_posix(), side, path) for path in files]
                if side == "base" and output == "full":
                    names = ", ".join(path.name for path in files)
                    warnings.append(f"{names} copied from base: tuned has none")
                break
    names = {name for name, _, _ in found}
    if output == "full" and "config.json" not in names:
        warnings.append("neither checkpoint has a config.json: transformers cannot load the output without one")
    return tuple(dict.fromkeys(found)), (*warnings, *_about_code(pair, names, output, allow_code))


def _about_code(pair: CheckpointPair, names: set[str], output: str, allow_code: bool) -> tuple[str, ...]:
    """Return what is to be said about code that the config refers to."""
    mapped = any("auto_map" in checkpoint.config for checkpoint in (pair.tuned, pair.base))
    if allow_code:
        code = sorted(name for name in names if name.endswith(".py"))
        if code:
            return (f"code is copied and was not looked at or run: {', '.join(code)}; read it before it is trusted",)
        return ("--allow-code was given, and neither checkpoint has a *.py file",)
    if mapped and output == "full":
        return ("the config refers to code of its own (auto_map); *.py files are copied only with --allow-code",)
    return ()


def _is_sidecar(path: Path, code: bool) -> bool:
    """Return whether a file may be carried: no weights, code only where asked for, no link to elsewhere."""
    refuse_stray_link(path)
    return path.is_file() and (path.suffix == ".py" if code else path.suffix not in _NEVER)
