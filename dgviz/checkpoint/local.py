"""Find the weights in a local directory and open them: headers, index and config, no tensor data."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, MAX_INDEX_BYTES, parse_json_object, read_document
from dgviz.checkpoint.folders import PIPELINE, explain_choice, explain_file, explain_folder, explain_pipeline
from dgviz.checkpoint.header import Header, read_header
from dgviz.checkpoint.hub import explain_missing_path, find_cached, split_hub_id
from dgviz.checkpoint.lora.files import refuse_lora
from dgviz.checkpoint.pickled import bin_allowed, read_pickled
from dgviz.checkpoint.read import same_bytes
from dgviz.checkpoint.remote.address import parse_address
from dgviz.checkpoint.remote.mirror import open_mirror
from dgviz.checkpoint.types import Checkpoint, TensorInfo
from dgviz.errors import CheckpointError
from dgviz.words import some

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_STEMS = "model", "diffusion_pytorch_model"
_FIRST = "", ".fp16"
"""Of the variants that lie side by side: the full weights come first, then those in half precision."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"

_SHARD = re.compile(r"-\d+-of-\d+(\.[\w-]+)?\.safetensors$")
_DIGITS = re.compile(r"([0-9]+)")
_WEIGHTS = re.compile(r".*\.safetensors(\.index(\.[\w-]+)?\.json)?", re.DOTALL)
_VARIANT = re.compile(rf"(?:{'|'.join(_STEMS)})(?:(\.[\w-]+)\.safetensors|\.safetensors\.index(\.[\w-]+)\.json)")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint by its headers; no tensor data is read.

    Parameters
    ----------
    path : str or Path
        A directory with ``model.safetensors``, or with shards and ``model.safetensors.index.json``, or with these as
        diffusers or a variant (``model.bf16.safetensors``) names them; any other single ``*.safetensors`` or index is
        taken where it is the only one. Or the path of a weight file, which is taken whatever lies beside it (a shard
        stands for its index). Or the hub id (``org/name@revision``) of a model in the Hugging Face cache. Or an
        address of any of these on another machine (``hf://org/name@revision``, ``https://``, ``s3://``, ``gs://``).

    Returns
    -------
    Checkpoint
        Its tensors in natural order of names.

    Raises
    ------
    CheckpointError
        If there are no weights, more than one set of weights, or files that contradict each other; or if the weights
        are those of a LoRA, which is no model by itself.
    """
    if not str(path).strip():
        raise CheckpointError("no path given: give a directory of *.safetensors weights")
    try:
        given = local_path(path)
        resolved = given.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(explain_missing_path(str(path), error)) from error
    # A file may be a link into a blob store, so only its directory is resolved.
    directory = resolved if resolved.is_dir() else given.parent.resolve()
    try:
        return _open_directory(directory, None if resolved.is_dir() else given)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror or error}") from error


def local_path(path: str | Path) -> Path:
    """Return where a path, a hub id (``org/name``, ``org/name@revision``) or an address lies on this machine.

    A hub id is looked up in the Hugging Face cache; one that is not there comes back as the path it is not. Of what
    lies at an address (``hf://``, ``https://``, ``s3://``, ``gs://``) a mirror is made as it is now.
    """
    address = parse_address(str(path))
    if address is not None:
        return open_mirror(address)
    hub = split_hub_id(str(path))
    cached = None if hub is None else find_cached(*hub)
    return Path(path).expanduser() if cached is None else cached


def _open_directory(directory: Path, given: Path | None) -> Checkpoint:
    """Open the weights of a directory; `given` is the weight file that was named, if one was."""
    config, raw_config = _read_config(directory)
    weights = _find_weights(directory, config) if given is None else _named_weights(directory, given.name)
    if weights.name.endswith(".json"):
        tensors, shards, digests = _open_sharded(directory, weights)
    else:
        header = _read_weights(weights)
        tensors, shards, digests = header.tensors, (weights.name,), [header.digest]
    if not tensors:
        raise CheckpointError(f"{weights} holds no tensors: save the model again")
    refuse_lora(weights, tensors)
    fingerprint = hashlib.sha256("|".join([hashlib.sha256(raw_config).hexdigest(), *shards, *digests]).encode())
    ordered = {name: tensors[name] for name in _in_order(tuple(tensors))}
    return Checkpoint(directory, ordered, config, shards, fingerprint.hexdigest())


def _read_weights(file: Path) -> Header:
    return read_pickled(file) if file.suffix == ".bin" else read_header(file)


@lru_cache(maxsize=4)
def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names in natural order; both sides of a pair mostly have the same."""
    return tuple(sorted(names, key=_natural))


def _natural(name: str) -> list[str | tuple[int, str]]:
    """Order runs of digits by value (length, then digits), so that layers.2 comes before layers.10."""
    parts = _DIGITS.split(name)  # text, digits, text, ...
    parts[1::2] = [(len(digits), digits) for part in parts[1::2] for digits in [part.lstrip("0")]]
    return parts


def _read_config(directory: Path) -> tuple[dict[str, Any], bytes]:
    """Return config.json and its bytes; empty where there is none. Code it refers to is never run."""
    file = directory / "config.json"
    try:
        raw = read_document(file, MAX_CONFIG_BYTES, "config")
    except FileNotFoundError:
        return {}, b""
    return parse_json_object(raw, str(file), constants=True), raw


def _named_weights(directory: Path, name: str) -> Path:
    """Return a weight file that was named, or the index that it is a shard of."""
    if bin_allowed() and name in (BIN, BIN_INDEX):
        return directory / name
    pickled = directory / BIN_INDEX
    if bin_allowed() and name.endswith(".bin") and pickled.is_file() and name in _read_index(pickled)[0].values():
        return pickled
    if not _is_plain_weight_name(name):
        raise CheckpointError(explain_file(directory / name))
    for index in sorted(directory.glob("*.safetensors.index*.json")):
        if name != index.name and not name.endswith(".json") and name in _read_index(index)[0].values():
            return index
    if _SHARD.search(name):
        raise CheckpointError(
            f"{directory / name} is one of several shards, and no index beside it lists it: fetch {INDEX} and the "
            "other shards"
        )
    return directory / name


def _find_weights(directory: Path, config: dict[str, Any]) -> Path:
    """Return the one weight file or index of a directory, in the loaders' order of precedence."""
    named = config.get("transformers_weights")
    if named is not None:
        if not isinstance(named, str) or not _is_plain_weight_name(named) or not (directory / named).is_file():
            raise CheckpointError(
                f"{directory / 'config.json'} names {named!r} as transformers_weights, which is no *.safetensors "
                "file or index in the same directory: fetch it, or remove the entry"
            )
        return directory / named
    names = [file.name for file in directory.iterdir() if file.is_file()]
    variants = {
        found[1] or found[2] for name in names if not _SHARD.search(name) and (found := _VARIANT.fullmatch(name))
    }
    for variant in _FIRST:
        found = [file for stem in _STEMS if (file := _of_variant(directory, stem, variant))]
        if found:
            return found[0]
    others = [
        _of_variant(directory, stem, variant) for variant in sorted(variants.difference(_FIRST)) for stem in _STEMS
    ]
    found = [file for file in others if file is not None]
    if len(found) == 1:
        return found[0]
    if (directory / PIPELINE).is_file():
        raise CheckpointError(explain_pipeline(directory))
    files = found or sorted(directory / name for name in names if _is_plain_weight_name(name))
    indices = [file for file in files if file.name.endswith(".json")]
    loose = [file for file in files if file not in indices and file.name != ADAPTER_WEIGHTS]
    if len(indices) == 1 and not found:
        return indices[0]
    if len(loose) == 1 and not indices and not _SHARD.search(loose[0].name):
        return loose[0]
    pickled = _one_of(directory, BIN, BIN_INDEX) if bin_allowed() and not files else None
    if pickled is not None:
        return pickled
    looked = f"no weights in {directory}: looked for {SINGLE} and {INDEX}"
    chosen = [file for file in indices or loose if not _SHARD.search(file.name)]
    if chosen:
        raise CheckpointError(explain_choice(directory, chosen))
    raise CheckpointError(explain_folder(directory, looked, [file.name for file in loose]))


def _of_variant(directory: Path, stem: str, variant: str) -> Path | None:
    """Return the single file or index of one variant of a set of weights."""
    return _one_of(directory, f"{stem}{variant}.safetensors", f"{stem}.safetensors.index{variant}.json")


def _one_of(directory: Path, single: str, index: str) -> Path | None:
    """Return the weight file or the index that is there, of which there must not be both."""
    found = [directory / name for name in (single, index) if (directory / name).is_file()]
    if len(found) == 2:
        raise CheckpointError(
            f"{directory} holds both {single} and {index}, and loaders disagree which to use: remove one"
        )
    return found[0] if found else None


def _is_plain_weight_name(name: str) -> bool:
    """Say whether `name` is a weight file or index beside the others: no folder, drive or parent in it."""
    return _WEIGHTS.fullmatch(name) is not None and _is_plain_name(name)


def _is_plain_name(name: str) -> bool:
    return not re.search(r"[/\\:\x00-\x1f]", name)


def _open_sharded(directory: Path, index: Path) -> tuple[dict[str, TensorInfo], tuple[str, ...], list[str]]:
    """Open every shard of an index and cross-check; the truth is in the shards' headers."""
    weight_map, digest = _read_index(index)
    shards = tuple(sorted(set(weight_map.values())))
    missing = [repr(shard) for shard in shards if not (directory / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{index} names shards that are not there: {some(missing)}; fetch the missing files into {directory}"
        )
    headers = {shard: _read_weights(directory / shard) for shard in shards}
    _check_index(index, weight_map, headers)
    tensors = {name: headers[shard].tensors[name] for name, shard in weight_map.items()}
    return tensors, shards, [digest, *(headers[shard].digest for shard in shards)]


def _read_index(index: Path) -> tuple[dict[str, str], str]:
    raw = read_document(index, MAX_INDEX_BYTES, "index")
    weight_map = parse_json_object(raw, str(index)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map of tensor names to shards: fetch it again")
    suffix = ".bin" if index.name == BIN_INDEX else ".safetensors"
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(suffix) or not _is_plain_name(shard):
            raise CheckpointError(
                f"{index} puts tensor {name!r} into {shard!r}: a shard must be a *{suffix} file name in the same "
                "directory, without a path; the index is damaged or unsafe"
            )
    return weight_map, hashlib.sha256(raw).hexdigest()


def _check_index(index: Path, weight_map: dict[str, str], headers: dict[str, Header]) -> None:
    """Refuse an index and shards that do not say the same; other loaders accept all of these silently."""
    found: dict[str, list[str]] = {}
    for shard, header in headers.items():
        for name in header.tensors:
            found.setdefault(name, []).append(shard)
    misplaced = [name for name, shard in weight_map.items() if name in found and shard not in found[name]]
    if misplaced:
        name = misplaced[0]
        raise CheckpointError(
            f"{index} puts tensor {name!r} into {weight_map[name]}, but it is in {found[name][0]} "
            f"({len(misplaced)} such): the index belongs to other shards, fetch it again"
        )
    ghosts = [repr(name) for name in weight_map if name not in found]
    if ghosts:
        raise CheckpointError(
            f"{index} lists tensors that no shard holds: {some(ghosts)}; the index belongs to other shards, "
            "fetch index and shards again"
        )
    unlisted = [name for name in found if name not in weight_map]
    if unlisted:
        raise CheckpointError(
            f"shards hold tensors that {index} does not list: {some(map(repr, unlisted))} "
            f"(the first in {found[unlisted[0]][0]}); fetch index and shards again"
        )
    for name, shards in found.items():
        # The index decides between copies, which is harmless only where they are the same.
        copies = [headers[shard].tensors[name] for shard in shards]
        for other in copies[1:]:
            if not same_bytes(copies[0], other):
                raise CheckpointError(
                    f"tensor {name!r} is in {copies[0].file} and, with other contents, in {other.file}: "
                    "save the model again"
                )
