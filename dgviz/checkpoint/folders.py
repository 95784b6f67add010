"""What a folder or file without weights dgviz can read is: by its files, and what makes a checkpoint of it.

One function per kind of folder: it returns a sentence, with the command or path that helps, or an empty text.
`KINDS` is the list in the order in which they are asked: a folder of a run holds folders of other kinds.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, read_document
from dgviz.checkpoint.pickled import bin_allowed
from dgviz.errors import CheckpointError
from dgviz.words import some

PIPELINE = "model_index.json"
"""What a diffusers pipeline has beside the directories of its components."""
_ADAPTER = "adapter_config.json"
_TRAINER = re.compile(r"checkpoint[-_](\d+)$")
_STEP = re.compile(r"(?:step|epoch)[-_=]?(\d+)$")
_SAVED = "save it as safetensors (save_pretrained)"


def explain_file(file: Path) -> str:
    """Say what a file that was named is, where it is no safetensors file or index."""
    if bin_allowed() and file.name.lower().endswith(_PICKLES):
        return f"{file} is a PyTorch pickle, {_READ}"
    kinds = [sentence for suffixes, sentence in _FILES if file.name.lower().endswith(suffixes)]
    kind = kinds[0] if kinds else "is no *.safetensors file or index: give one, or the directory that holds them"
    return f"{file} {kind}"


_PICKLES = ".bin", ".pt", ".pth", ".ckpt", ".pkl"
_READ = (
    "of which pytorch_model.bin is read, or the shards that pytorch_model.bin.index.json lists, and no other name: "
    f"name it so where it holds plain tensors by their names, or {_SAVED}"
)
_PICKLE = "is a PyTorch pickle, which is not read by its name: "
_FILES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".gguf",), "is a GGUF file, which is not read: use the original safetensors model it was made from"),
    (
        (".nemo",),
        f"is a NeMo archive, which is not read: export it for transformers with NeMo, then {_SAVED}",
    ),
    (
        _PICKLES,
        f"{_PICKLE}{_SAVED}, or set DGVIZ_ALLOW_BIN=1 for a pytorch_model.bin you trust",
    ),
    ((".h5", ".msgpack", ".onnx", ".tflite"), "holds weights of another framework: use the safetensors model"),
)


def explain_choice(directory: Path, files: Sequence[Path]) -> str:
    """Say that a directory holds several sets of weights, of which one is to be named."""
    return (
        f"{directory} holds several sets of weights ({some([file.name for file in files])}), and none has the name "
        f"that loaders look for: name the one that is meant, such as {files[0]}"
    )


def explain_folder(directory: Path, looked: str, shards: Sequence[str]) -> str:
    """Say what is in a directory without weights that can be read, and what to do."""
    entries = sorted(directory.iterdir())
    broken = next((entry.name for entry in entries if _is_broken_link(entry)), None)
    if broken:
        return f"{looked}, but {broken} is a link to a file that is gone: fetch it again"
    if shards:
        return f"{looked}, and cannot complete what is there ({some(shards)}): fetch the missing index or shards"
    for kind in KINDS:
        sentence = kind(directory)
        if sentence:
            return f"no weights in {directory}: {sentence}"
    for suffixes, what, remedy in _OTHERS:
        found = next((entry.name for entry in entries if entry.name.endswith(suffixes)), None)
        if found and bin_allowed() and suffixes is _PICKLES:
            return f"{looked}, but it holds a PyTorch pickle ({found}), {_READ}"
        if found:
            return f"{looked}, but it holds {what} ({found}), which are not read yet: {remedy}"
    if not entries:
        return f"{looked}, but it is empty"
    return f"{looked}: give the directory that holds them"


_OTHERS = (
    ((".gguf",), "GGUF files", "use the original safetensors model it was made from"),
    (
        _PICKLES,
        "PyTorch pickles",
        "set DGVIZ_ALLOW_BIN=1 for a pytorch_model.bin you trust, or save_pretrained it as safetensors",
    ),
    ((".h5", ".msgpack", ".onnx"), "weights of another framework", "use the safetensors model"),
)


def explain_pipeline(directory: Path) -> str:
    """Say which components of a diffusers pipeline can be opened: a pipeline is several models, each a checkpoint."""
    components = sorted({file.parent for file in directory.glob("*/*.safetensors")})
    if not components:
        return (
            f"{directory} is a diffusers pipeline ({PIPELINE}), and none of its directories holds *.safetensors "
            "weights: save_pretrained it with safe_serialization, or fetch the whole pipeline"
        )
    return (
        f"{directory} is a diffusers pipeline ({PIPELINE}) of several models, each a checkpoint of its own: "
        f"give one of {', '.join(map(str, components))}"
    )


def _adapter(directory: Path) -> str:
    """Tell a PEFT adapter."""
    if not (directory / _ADAPTER).is_file():
        alone = next(iter(sorted(directory.glob("adapter_model.*"))), None)
        return f"it holds {alone.name} without its {_ADAPTER}, which says rank and scaling: fetch it" if alone else ""
    return (
        f"it holds a PEFT adapter ({_ADAPTER}), which is no model by itself: give it as tuned, and the model it was "
        "trained on as base"
    )


def _cache_entry(directory: Path) -> str:
    """Tell an entry of the Hugging Face cache."""
    if not (directory / "snapshots").is_dir():
        return ""
    return f"it is a Hugging Face cache entry: give {_one_of(_folders(directory / 'snapshots', '*'))}"


def _run(directory: Path) -> str:
    """Tell the output folder of a trainer, with its checkpoints by their steps."""
    steps = {int(found[1]): entry for entry in _folders(directory, "*") if (found := _TRAINER.match(entry.name))}
    if not steps:
        found = ((_STEP.search(entry.name), entry) for entry in _folders(directory, "*") if _has_weights(entry))
        steps = {int(step[1]): entry for step, entry in found if step}
    ordered = [steps[step] for step in sorted(steps) if any(steps[step].iterdir())]
    if not ordered:
        return ""
    listed = some([entry.name for entry in ordered], most=6)
    return f"it is the output folder of a training run with the checkpoints {listed}: give one, such as {ordered[-1]}"


def _verl(directory: Path) -> str:
    """Tell shards per rank, as verl and SkyRL write them."""
    found = _latest(directory, "model_world_size_*_rank_*.pt", depth=3)
    if found is None:
        return ""
    command = _command("python -m verl.model_merger merge --backend fsdp --local_dir", found, "--target_dir OUT")
    return f"it holds FSDP shards of verl (in {found.name}): merge them by {command}, and give OUT"


def explain_zero(directory: Path) -> str:
    """Tell DeepSpeed ZeRO: the script that gathers the weights lies beside them, or in the package."""
    found = _latest(directory, "*_model_states.pt", depth=3) or _latest(directory, "*_optim_states.pt", depth=3)
    scripts = _files(directory, "zero_to_fp32.py", depth=2) or sorted(directory.parent.glob("zero_to_fp32.py"))
    if found is None and not (scripts and scripts[0].parent == directory):
        return ""
    if scripts:
        script = next((file for file in scripts if found and file.parent in (found, found.parent)), scripts[0])
        root, program = script.parent, f"python {shlex.quote(str(script))}"
    else:
        root = found.parent if found.name.startswith("global_step") else found
        program = "python -m deepspeed.utils.zero_to_fp32"
    what = "ZeRO shards of DeepSpeed" if found else "the script zero_to_fp32.py of a DeepSpeed run"
    return (
        f"it holds {what}: gather the weights by {_command(program, root, 'OUT --safe_serialization')}, and give OUT"
    )


def _nemo(directory: Path) -> str:
    """Tell NeMo by an archive, or by the two folders of a checkpoint of NeMo 2."""
    archive = next(iter(sorted(directory.glob("*.nemo"))), None)
    if archive:
        return (
            f"it holds the NeMo archive {archive.name}: export it by NeMo's convert_<model>_nemo_to_hf.py "
            f"--input_name_or_path {shlex.quote(str(archive))} --output_path OUT, and give OUT"
        )
    if not ((directory / "context").is_dir() and (directory / "weights").is_dir()):
        return ""
    call = f"llm.export_ckpt(path={str(directory)!r}, target='hf', output_path='OUT')"
    program = shlex.quote(f"from nemo.collections import llm; {call}")
    return f"it is a checkpoint of NeMo 2 (context/ and weights/): export it by `python -c {program}`, and give OUT"


def _megatron(directory: Path) -> str:
    """Tell Megatron by ranks, or iterations with a file that names the latest."""
    found = _latest(directory, "model_optim_rng.pt", depth=3)
    latest = directory / "latest_checkpointed_iteration.txt"
    iterations = _folders(directory, "iter_*")
    if found is None and not latest.is_file() and not (directory / "common.pt").is_file():
        return ""
    root = iterations[-1] if iterations else directory
    return (
        "it is a Megatron checkpoint: export it with Megatron Bridge, AutoBridge.from_hf_pretrained(BASE)"
        f".export_ckpt({str(root)!r}, 'OUT'), and give OUT"
    )


def _fsdp(directory: Path) -> str:
    """Tell FSDP: shards of torch's distributed checkpoints, or one file per rank."""
    parts = sorted({file.parent for file in _files(directory, "*.distcp", depth=2)}, key=_not_model)
    if parts:
        command = _command("accelerate merge-weights", parts[0], "OUT")
        return f"it holds FSDP shards (*.distcp): merge them by {command}, put config.json into OUT, and give OUT"
    whole = directory / "pytorch_model_fsdp.bin"
    if whole.is_file():
        return (
            f"it holds the whole weights of FSDP as a pickle ({whole.name}): name it pytorch_model.bin and set "
            f"DGVIZ_ALLOW_BIN=1, or {_SAVED}"
        )
    ranks = sorted(directory.glob("pytorch_model_fsdp_rank*.bin")) or sorted(
        directory.glob("pytorch_model_rank*.bin")
    )
    if not ranks:
        return ""
    return (
        f"it holds FSDP weights of each rank ({ranks[0].name}), which only the run that wrote them can load: "
        "load them there, and save with FULL_STATE_DICT"
    )


def _not_model(folder: Path) -> tuple[bool, str]:
    return "optim" in folder.name, folder.name


def _original(directory: Path) -> str:
    """Tell weights as Meta publishes them, beside those for transformers or alone."""
    found = _latest(directory, "consolidated*.pth", depth=1)
    if found is None:
        return ""
    if _has_weights(found.parent):
        return f"it holds the original layout of the weights that lie for transformers in {found.parent}: give that"
    command = _command(
        "python -m transformers.models.llama.convert_llama_weights_to_hf --input_dir", found, "--output_dir OUT"
    )
    return f"it holds weights in Meta's original layout: convert them by {command} (transformers 4), and give OUT"


def _modules(directory: Path) -> str:
    """Tell a sentence-transformers model whose transformer has a folder of its own."""
    try:
        modules = json.loads(read_document(directory / "modules.json", MAX_CONFIG_BYTES, "list of modules"))
        paths = [directory / str(module["path"]) for module in modules if module["path"]]
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    found = [path for path in paths if path.parent == directory and _has_weights(path)]
    if not found:
        return ""
    return f"it is a sentence-transformers model (modules.json): give the module that is meant, {_one_of(found)}"


def _below(directory: Path) -> str:
    """Tell a checkpoint or an adapter one level down."""
    folders = _folders(directory, "*")
    adapters = [folder for folder in folders if (folder / _ADAPTER).is_file()]
    if adapters:
        return f"a PEFT adapter lies one level down: give {_one_of(adapters)} as tuned"
    found = [folder for folder in folders if _has_weights(folder)]
    return f"weights lie one level down: give {_one_of(found)}" if found else ""


KINDS: tuple[Callable[[Path], str], ...] = (
    _adapter,
    _cache_entry,
    _run,
    _verl,
    explain_zero,
    _nemo,
    _megatron,
    _fsdp,
    _original,
    _modules,
    _below,
)
"""Every kind of folder that is known."""


def _has_weights(directory: Path) -> bool:
    """Return whether a folder holds weights in safetensors."""
    return any(directory.glob("*.safetensors"))


def _folders(directory: Path, pattern: str) -> list[Path]:
    return sorted(entry for entry in directory.glob(pattern) if entry.is_dir())


def _files(directory: Path, pattern: str, depth: int) -> list[Path]:
    """Return the files of a name in a folder and up to so many levels below, the nearest first."""
    return [file for level in range(depth + 1) for file in sorted(directory.glob("*/" * level + pattern))]


def _latest(directory: Path, pattern: str, depth: int) -> Path | None:
    """Return the folder of a file of a name: at the nearest level, of the last step, and of no critic."""
    found = _files(directory, pattern, depth)
    nearest = [file.parent for file in found if len(file.parts) == len(found[0].parts)]
    return max(nearest, key=lambda folder: ("critic" not in folder.name, _natural(str(folder))), default=None)


def _natural(text: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _one_of(paths: Iterable[Path]) -> str:
    """Return a path, or several to choose from."""
    paths = list(paths)
    return str(paths[0]) if len(paths) == 1 else f"one of {some(list(map(str, paths)))}"


def _command(program: str, path: Path, rest: str) -> str:
    """Return a command as one types it."""
    return f"`{program} {shlex.quote(str(path))} {rest}`"


def _is_broken_link(entry: Path) -> bool:
    return entry.suffix in (".safetensors", ".json") and entry.is_symlink() and not entry.exists()
