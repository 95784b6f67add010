"""The files of a model beside its weights: all are carried into an output, but for what there is a reason to leave.

Weights, training state and code stay behind, and what speaks of tuned alone (its card, its scores). A folder that
holds weights is another model, unless ``modules.json`` names it: a sentence-transformers module with weights of its
own. What tuned lacks altogether (a tokenizer, say) comes from base.
"""

import glob
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgviz.checkpoint import Checkpoint, CheckpointPair
from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, open_own, read_document
from dgviz.checkpoint.lone import own_stem, stands_alone
from dgviz.errors import CheckpointError

_LEFT = {
    "training state": r"optimizer|scheduler\.|scaler\.|rng_state|random_states|training_args|trainer_(state|log)"
    r"|.*_states\.pt$|latest$|zero_to_fp32\.py$|events\.out\.|wandb$|.*\.distcp$",
    "it was not written to its end": r".*\.(partial|incomplete)$",
    "it speaks of tuned alone": r"readme\.md$|dgviz(\.run)?\.json$|(all|train|eval|test|predict)_results\.json$",
    "weights": r".*\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|h5|msgpack|ot|onnx|onnx_data|tflite|nemo|npz|pdparams)$"
    r"|.*\.(safetensors|bin)\.index(\.[\w-]+)?\.json$|(hf_)?quanti?z?e?_config\.json$",
    "code": r".*\.(py|pyc|pyd|so|dll|sh|bat|ipynb|pkl|pickle)$",
}
_PATTERNS = {reason: re.compile(pattern, re.IGNORECASE) for reason, pattern in _LEFT.items()}
_HIDDEN, _LINK = "hidden", "a link to another folder"
_OTHER_MODEL, _OTHERS, _MERGED = "it holds weights of its own", "it belongs to other weights", "the adapter is merged"

_TOKENIZER = ("tokenizer.json", "*.model", "vocab*", "merges.txt", "*.spm", "*.codes", "*.tiktoken", "tekken.json")
_TOKENIZER += ("*vocab*.json", "dict*.txt", "*.tokenizer")
_NAMED = {
    "config": ("config.json",),
    "generation": ("generation_config.json",),
    "tokenizer": (*_TOKENIZER, "tokenizer*", "special_tokens_map.json", "added_tokens.json", "normalizer.json"),
    "template": ("chat_template*",),
    "templates": ("additional_chat_templates/*",),
    "preprocessor": ("preprocessor_config.json",),
    "processor": ("processor_config.json",),
    "video": ("video_preprocessor_config.json",),
    "image": ("image_processor_config.json",),
    "features": ("feature_extractor_config.json",),
    "licence": ("LICENSE*",),
    "notice": ("NOTICE*",),
}
"""What base gives where tuned has none, by kind: what transformers and vLLM read."""
_WITH_ADAPTER = "tokenizer", "template", "licence", "notice"
_POINTER = b"version https://git-lfs."
_INSIDE = {
    "template": ("tokenizer_config.json", ("chat_template",)),
    "preprocessor": ("processor_config.json", ("image_processor", "feature_extractor")),
    "image": ("processor_config.json", ("image_processor",)),
    "video": ("processor_config.json", ("video_processor",)),
    "features": ("processor_config.json", ("feature_extractor",)),
}
"""Kinds that another file may hold, and under which keys."""


@dataclass(frozen=True)
class Sidecars:
    """What is carried into an output and what is not.

    Attributes
    ----------
    files : tuple of (str, str, Path)
        Relative name, side and source of what is carried.
    left : mapping of str to str
        Name and reason of what stays behind in tuned's folder.
    warnings : tuple of str
        Sentences for the user.
    """

    files: tuple[tuple[str, str, Path], ...]
    left: dict[str, str]
    warnings: tuple[str, ...]


def find_sidecars(pair: CheckpointPair, output: str = "full", allow_code: bool = False) -> Sidecars:
    """Return the other files of a model: tuned's, and base's where tuned has none of a kind."""
    if output == "factors":
        return Sidecars((), {}, ())
    carried, left = _beside(pair.tuned, output, allow_code)
    files = {name: ("tuned", path) for name, path in carried.items()}
    warnings = []
    theirs, _ = _beside(pair.base, output, allow_code)
    kinds = _NAMED if output == "full" else {kind: _NAMED[kind] for kind in _WITH_ADAPTER}
    kinds = {**kinds, "code": ("*.py",)} if allow_code else kinds
    for kind, patterns in kinds.items():
        mine = _has(kind, carried, patterns)
        added = [name for name in _matching(theirs, patterns) if name not in files] if not mine else []
        files |= {name: ("base", theirs[name]) for name in added}
        if added and output == "full" and not pair.tuned.is_adapter:
            warnings.append(
                f"{', '.join(PurePosixPath(name).name for name in added)} copied from base: tuned has none"
            )
    if output == "full" and pair.tuned.is_adapter:  # base is the model: all that is not of a kind that tuned has
        known = {name for patterns in kinds.values() for name in _matching(theirs, patterns)}
        files |= {name: ("base", path) for name, path in theirs.items() if name not in known | files.keys()}
    if output == "full" and "config.json" not in files:
        warnings.append("neither checkpoint has a config.json: transformers cannot load the output without one")
    warnings += _about_code(pair, set(files), output, allow_code)
    return Sidecars(tuple((name, side, path) for name, (side, path) in files.items()), left, tuple(warnings))


def _has(kind: str, carried: dict[str, Path], patterns: tuple[str, ...]) -> bool:
    """Return whether tuned has files of a kind; a tokenizer of its own has its own template, or none on purpose."""
    own = _TOKENIZER if kind in ("tokenizer", "template", "templates") else ()
    if _matching(carried, own if kind == "tokenizer" else (*patterns, *own)):
        return True
    name, keys = _INSIDE.get(kind, ("", ()))
    if name not in carried:
        return False
    try:
        held = json.loads(read_document(carried[name], MAX_CONFIG_BYTES, "config"))
    except (OSError, ValueError, RecursionError, CheckpointError):
        return False
    return isinstance(held, dict) and any(key in held for key in keys)


def _matching(names: dict[str, Path], patterns: tuple[str, ...]) -> list[str]:
    """Return the names that one of some patterns describes, in the patterns' order."""
    found = [name for pattern in patterns for name in names if _describes(pattern, name)]
    return list(dict.fromkeys(found))


def _describes(pattern: str, name: str) -> bool:
    return PurePosixPath(name).match(pattern) and pattern.count("/") == name.count("/")


def _beside(checkpoint: Checkpoint, output: str, allow_code: bool) -> tuple[dict[str, Path], dict[str, str]]:
    """Return what of a checkpoint's folder is carried, and what is not with the reason."""
    root = checkpoint.path
    if checkpoint.is_adapter and not (root / "adapter_config.json").is_file():
        return {}, {}  # a LoRA file in a folder of any others
    own = own_stem(checkpoint)
    if stands_alone(checkpoint):  # what else lies in the folder is nobody's business, names included
        named = (path for path in sorted(root.glob(f"{glob.escape(own)}.*")) if path.name not in checkpoint.shards)
        files = (path for path in named if path.is_file() and not path.is_symlink() and not _reason(path.name))
        return {path.name: path for path in files}, {}
    kinds = _NAMED if output == "full" else {kind: _NAMED[kind] for kind in _WITH_ADAPTER}
    carried: dict[str, Path] = {}
    left: dict[str, str] = {}
    for name, path, reason in _walk(root, root, _modules(root), checkpoint.shards):
        known = any(_matching({name: path}, patterns) for patterns in kinds.values())
        if not reason and path.name == "adapter_config.json":
            reason = _MERGED
        if not reason and own is not None and not path.name.startswith(own) and not known:
            reason = _OTHERS
        if not reason and output == "lora" and not known:
            continue  # an adapter is no model
        if reason == "code" and allow_code and path.suffix == ".py":
            reason = ""
        if reason:
            left[name] = reason
        else:
            with open_own(path, root) as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise CheckpointError(
                        f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in its directory"
                    )
            carried[name] = path
    return carried, left


def _walk(
    folder: Path, root: Path, modules: tuple[str, ...], shards: tuple[str, ...]
) -> Iterator[tuple[str, Path, str]]:
    """Yield every file below a folder, or a folder that is left as a whole: name, path, and why it is left."""
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        module = any(name == known or name.startswith(f"{known}/") for known in modules)
        reason = _reason(path.name)
        if path.name.startswith("."):
            yield name, path, _HIDDEN
        elif not path.is_dir():
            if path.is_file() and name not in shards:
                yield name, path, "" if module and reason == "weights" else reason
        elif path.is_symlink():
            yield f"{name}/", path, _LINK
        elif reason == "training state" or (not module and (reason := _whole(path))):
            yield f"{name}/", path, reason
        else:
            yield from _walk(path, root, modules, shards)


def _reason(name: str) -> str:
    """Return why a file of a name is left; empty where it is carried."""
    return next((reason for reason, pattern in _PATTERNS.items() if pattern.match(name)), "")


def _whole(folder: Path) -> str:
    """Return why a folder is left as a whole: it holds weights or training state itself, and is another model's."""
    names = [path.name for path in folder.iterdir()]
    if any(_PATTERNS["training state"].match(name) for name in names):
        return "training state"
    return _OTHER_MODEL if any(_PATTERNS["weights"].match(name) for name in names) else ""


def _modules(root: Path) -> tuple[str, ...]:
    """Return the folders that a sentence-transformers model's ``modules.json`` names."""
    try:
        modules = json.loads(read_document(root / "modules.json", MAX_CONFIG_BYTES, "list of modules"))
        return tuple(str(module["path"]) for module in modules if module["path"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


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
