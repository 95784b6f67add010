"""LoRA weights as other trainers write them: kohya, diffusers and mlx-lm, told by the names of their tensors.

All of them are base plus scaling * B @ A under names of their own: kohya writes a module's path with underscores and
its alpha beside it; diffusers puts the pipeline's component before the path and the settings, where there are any, in
the file's metadata; mlx-lm stores both factors transposed and the scale in ``adapter_config.json``. A module belongs
to the base's weight whose path, written with underscores, is its own or ends with it, if there is just one.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, parse_json_object, read_document
from dgviz.checkpoint.header import Header, peek_names, read_header
from dgviz.checkpoint.lora.config import CONFIG, AdapterConfig, check_adapter_config
from dgviz.checkpoint.lora.tensor import LoraTensor, lora_tensor
from dgviz.checkpoint.read import read_bytes
from dgviz.checkpoint.types import WARNING, Checkpoint, Notice, TensorInfo
from dgviz.checkpoint.ungathered import refuse_ungathered
from dgviz.errors import CheckpointError
from dgviz.words import some

_FACTOR = re.compile(
    r"(?P<module>.+?)(?:"
    r"[._](?P<old>lora|lora_linear_layer)\.(?P<side>up|down)\.weight"
    r"|\.lora_(?P<kohya>up|down)\.weight"
    r"|\.lora_(?P<peft>[AB])(?:\.default)?\.weight"
    r"|\.lora_(?P<mlx>[ab])"
    r"|\.(?P<other>alpha|dora_scale|lora_mid\.weight|lora_magnitude_vector(?:\.weight)?|m"
    r"|hada_\w+|lokr_\w+|oft_\w+|boft_\w+|glora_\w+|diff|diff_b|on_input))"
)
_LYCORIS = "hada_", "lokr_", "oft_", "boft_", "glora_"
_FIRST = {"down": "A", "up": "B", "A": "A", "B": "B", "a": "A", "b": "B"}
_METADATA = "lora_adapter_metadata"
_COMPONENT = re.compile(
    r"^(?:lora|lycoris)_(?P<kohya>unet|te\d?|transformer|prior_unet|prior_te)_|^(?P<dotted>[a-z]\w*)\."
)
_NAMES = {"unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "text_encoder_3", "prior"}
_NAMES |= {"diffusion_model", "vae", "controlnet"}
_FOLDER_NAMES = "pytorch_lora_weights.safetensors", "adapters.safetensors"
_DIFFUSERS = "load it with diffusers (load_lora_weights, fuse_lora), save_pretrained, and give the fused component"
_FUSE = {
    "kohya": _DIFFUSERS,
    "diffusers": _DIFFUSERS,
    "mlx-lm": "fuse it (mlx_lm.fuse --de-quantize) and give the fused model",
    "PEFT": f"put its {CONFIG} beside it, which says rank and scaling",
}


@dataclass(frozen=True)
class LoraFile:
    """A file of LoRA factors without a model, and who wrote it: a key of `_FUSE`."""

    path: Path
    header: Header
    kind: str

    @property
    def remedy(self) -> str:
        """What makes a checkpoint of it."""
        return _FUSE[self.kind]


def lora_kind(names: Iterable[str]) -> str:
    """Return who writes LoRA factors under such names; empty where there is any other tensor."""
    found = []
    for name in names:
        found.append(_FACTOR.fullmatch(name))
        if found[-1] is None:  # of a model's thousands of names the first says it
            return ""
    if not any(match["other"] is None or match["other"].startswith(_LYCORIS) for match in found):
        return ""
    if any(match["mlx"] for match in found):
        return "mlx-lm"
    if all("." not in match["module"] for match in found):
        return "kohya"
    known = (match["old"] or match["module"].partition(".")[0] in _NAMES for match in found)
    return "diffusers" if all(known) else "PEFT"


def refuse_lora(file: Path, names: Iterable[str]) -> None:
    """Refuse weights that are those of a LoRA where a model is wanted."""
    kind = lora_kind(names)
    if kind == "PEFT":
        raise CheckpointError(f"{file} holds LoRA factors and no model: {_FUSE[kind]}, and give the folder as tuned")
    if kind:
        raise CheckpointError(
            f"{file} is a LoRA as {kind} writes it, no model: give it as tuned, and what it was trained on as base"
        )


def find_lora_file(path: Path) -> LoraFile | None:
    """Return the LoRA that a path means: the file itself, or the one in a folder that holds nothing else."""
    if not path.exists():
        return None
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    file = path
    if path.is_dir():
        named = [path / name for name in _FOLDER_NAMES if (path / name).is_file()]
        found = named[:1] or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            return None
        file = found[0]
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    if (names := peek_names(file)) and not lora_kind(names):
        return None  # a model, whose header is read in full where it is opened
    header = read_header(file)
    kind = lora_kind(header.tensors)
    return LoraFile(file, header, kind) if kind and kind != "PEFT" else None


def open_lora_file(lora: LoraFile, base: Checkpoint) -> Checkpoint:
    """Return the tuned checkpoint that a LoRA makes of a base; what cannot be read is refused by name."""
    refuse_ungathered(lora.path, lora.header.tensors)
    factors, alphas = _sort(lora)
    paths = _flat_paths(base)
    changed: dict[str, TensorInfo] = {}
    left: list[str] = []
    raw = b""
    for component, modules in _by_component(lora, factors).items():
        targets = {module: _target(lora, base, paths, inner, factors[module]) for module, inner in modules.items()}
        missing = [module for module, name in targets.items() if name is None]
        if len(missing) == len(targets):
            left.append(component)
            continue
        if missing:
            raise CheckpointError(
                f"{lora.path} changes {some(map(repr, missing))}, which {base.path} does not hold under such a name "
                f"and shape: is this the base it was trained on? If so, {lora.remedy}"
            )
        settings, found = _settings(lora, component)
        raw += found
        for module, name in targets.items():
            scaling = _scaling(lora, settings, modules[module], factors[module], alphas.get(module))
            new = _add(lora, base.tensors[name], factors[module], scaling)
            if name in changed:
                raise CheckpointError(f"{lora.path} changes {name!r} of {base.path} twice: {lora.remedy}")
            changed[name] = new
    if not changed:
        raise CheckpointError(
            f"{lora.path} (a LoRA as {lora.kind} writes it) changes nothing of {base.path}, such as "
            f"{next(iter(factors))!r}: is this the base, or the component of it, that it was trained on? If so, "
            f"{lora.remedy}"
        )
    tensors = {name: changed.get(name, info) for name, info in base.tensors.items()}
    text = "|".join([base.fingerprint, hashlib.sha256(raw).hexdigest(), lora.header.digest])
    notices = (_others_left(lora, left),) if left else ()
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(lora.path.parent.resolve(), tensors, base.config, base.shards, fingerprint, True, notices)


def _others_left(lora: LoraFile, left: list[str]) -> Notice:
    message = f"{lora.path} changes {some(left)} too, which is another component than base and is left out."
    return Notice("lora_components", WARNING, message, "Repair that component by a command of its own.")


def _sort(lora: LoraFile) -> tuple[dict[str, dict[str, TensorInfo]], dict[str, TensorInfo]]:
    """Return factors A and B by module, and the scalars that are alphas."""
    factors: dict[str, dict[str, TensorInfo]] = {}
    alphas: dict[str, TensorInfo] = {}
    for name, info in lora.header.tensors.items():
        match = _FACTOR.fullmatch(name)
        side = match["side"] or match["kohya"] or match["peft"] or match["mlx"]
        if side:
            factors.setdefault(match["module"], {})[_FIRST[side]] = info
        elif match["other"] == "alpha":
            alphas[match["module"]] = info
        else:
            raise CheckpointError(
                f"{lora.path} holds {name!r}: it is no plain LoRA (LoHa, LoKr, DoRA and a third factor are not "
                f"read); {lora.remedy}"
            )
    for module, pair in factors.items():
        if pair.keys() != {"A", "B"}:
            raise CheckpointError(f"{lora.path} holds only one of the two factors of {module!r}: save it again")
    return factors, alphas


def _by_component(lora: LoraFile, modules: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the modules by the component of a pipeline that their names begin with, each with the rest."""
    found: dict[str, dict[str, str]] = {}
    for module in modules:
        match = _COMPONENT.match(module) if lora.kind != "mlx-lm" else None
        name = "" if match is None else match["kohya"] or match["dotted"]
        if match is not None and not match["kohya"] and name not in _NAMES:
            name = ""
        inner = module[match.end() :] if name else module
        if ".processor" in inner:  # diffusers before 0.21: to_out's layer is the first of a list
            inner = inner.replace(".processor", "").replace("to_out", "to_out.0")
        found.setdefault(name, {})[module] = re.sub(r"_lora$", "", inner)
    return found


def _flat_paths(base: Checkpoint) -> dict[str, list[str]]:
    """Return base's weights by their module's path with underscores."""
    paths: dict[str, list[str]] = {}
    for name in base.tensors:
        if name.endswith(".weight"):
            paths.setdefault(name.removesuffix(".weight").replace(".", "_"), []).append(name)
    return paths


def _target(
    lora: LoraFile, base: Checkpoint, paths: Mapping[str, list[str]], inner: str, pair: Mapping[str, TensorInfo]
) -> str | None:
    """Return base's name of the weight that a module's factors change, by its path and the factors' shape."""
    flat = inner.replace(".", "_")
    found = [flat] if flat in paths else [path for path in paths if path.endswith(f"_{flat}")]
    if not found:  # base may be the inner model of what was trained
        found = sorted((path for path in paths if flat.endswith(f"_{path}")), key=len)[-1:]
    names = [name for path in found for name in paths[path]]
    fitting = [name for name in names if _fits(lora, base.tensors[name], pair)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(lora: LoraFile, info: TensorInfo, pair: Mapping[str, TensorInfo]) -> bool:
    """Return whether the factors' sizes are those of an update of a weight."""
    first, second = pair["A"], pair["B"]
    if min(len(info.shape), len(first.shape), len(second.shape)) < 2:
        return False
    turned = lora.kind == "mlx-lm"
    rank, rows = first.shape[turned], info.shape[0]
    sizes = (first.numel, second.numel)
    wanted = (info.numel // rows * rank, rows * rank)
    return sizes == wanted or (turned and sizes == wanted[::-1])  # turned: an embedding


def _settings(lora: LoraFile, component: str) -> tuple[AdapterConfig | float | None, bytes]:
    """Return what says the scaling beside the tensors: a PEFT config, mlx-lm's scale, or nothing."""
    directory = lora.path.parent
    if lora.kind == "mlx-lm":
        file = directory / CONFIG
        try:
            raw = read_document(file, MAX_CONFIG_BYTES, "config")
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{lora.path} needs the {CONFIG} of mlx-lm, which says its scale: fetch it"
            ) from error
        values = parse_json_object(raw, str(file))
        said = values.get("lora_parameters")
        scale = said.get("scale") if isinstance(said, dict) else None
        if values.get("fine_tune_type", "lora") != "lora" or not isinstance(scale, int | float) or "alpha" in said:
            raise CheckpointError(
                f"{file} says fine_tune_type {values.get('fine_tune_type')!r} and lora_parameters {said!r}, and only "
                f"lora with a scale is read: {lora.remedy}"
            )
        return float(scale), raw
    text = lora.header.metadata.get(_METADATA)
    if not text:
        return None, b""
    try:
        values = json.loads(text)
        own = {
            key.removeprefix(f"{component}."): value
            for key, value in values.items()
            if key.startswith(f"{component}.")
        }
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{lora.path}: its metadata {_METADATA} is not JSON: save it again") from error
    config = AdapterConfig(directory, {"peft_type": "LORA", **own}, text.encode())
    check_adapter_config(config.values, lora.path)
    return config, config.raw


def _scaling(
    lora: LoraFile,
    settings: AdapterConfig | float | None,
    module: str,
    pair: Mapping[str, TensorInfo],
    alpha: TensorInfo | None,
) -> float:
    """Return the factor of B @ A: as the settings say, else alpha / rank, else 1."""
    if isinstance(settings, float):
        return settings
    if settings is not None:
        return settings.rank_and_scaling(module)[1]
    if alpha is None:
        return 1.0
    return _scalar(lora, alpha) / pair["A"].shape[0]


def _scalar(lora: LoraFile, info: TensorInfo) -> float:
    """Return the one number that a tensor holds."""
    codes = {"float64": "<d", "float32": "<f", "float16": "<e", "int64": "<q", "int32": "<i"}
    raw = bytes(read_bytes(info)) if info.numel == 1 else b""
    if info.numel == 1 and info.dtype == "bfloat16":
        return float(struct.unpack("<f", b"\0\0" + raw)[0])
    if info.numel != 1 or info.dtype not in codes:
        raise CheckpointError(f"{lora.path}, tensor {info.name!r} is {info.dtype} {info.shape}, no single number")
    return float(struct.unpack(codes[info.dtype], raw)[0])


def _add(lora: LoraFile, info: TensorInfo, pair: dict[str, Any], scaling: float) -> LoraTensor:
    """Return base plus one module's update."""
    if lora.kind == "mlx-lm":  # (in, rank) and (rank, out): the product is the update's transpose
        return lora_tensor(info, pair["B"], pair["A"], scaling, True, False)
    return lora_tensor(info, pair["A"], pair["B"], scaling, False, False)
