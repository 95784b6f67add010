"""Find the weights in a local directory and open them: headers, index and config, no tensor data."""

import hashlib
import re
from pathlib import Path
from typing import Any

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, parse_json_object, read_document
from dgviz.checkpoint.header import Header, read_header
from dgviz.checkpoint.hints import PIPELINE, explain_missing_path, explain_no_weights, explain_pipeline
from dgviz.checkpoint.hub import find_cached, split_hub_id
from dgviz.checkpoint.pickled import bin_allowed, read_pickled
from dgviz.checkpoint.read import same_bytes
from dgviz.checkpoint.types import Checkpoint, TensorInfo
from dgviz.errors import CheckpointError
from dgviz.words import some

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SETS = tuple(
    (f"{stem}{dot}.safetensors", f"{stem}.safetensors.index{dot}.json")
    for dot in ("", ".fp16")
    for stem in ("model", "diffusion_pytorch_model")
)
"""Single file and index of every set of weights that loaders know by name, in their order of precedence: the name of
transformers, that of diffusers for a component of a pipeline, and the half-precision variant that may lie beside."""
BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
MAX_INDEX_BYTES = 256_000_000
"""Real indices reach 23.5 MB; beyond this the file is not an index."""

_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint by its headers; no tensor data is read.

    Parameters
    ----------
    path : str or Path
        A directory with ``model.safetensors``, or with shards and ``model.safetensors.index.json``, or with these as
        diffusers names them; any other single ``*.safetensors`` or index is taken where it is the only one. Or the
        path of such a weight file, or the hub id (``org/name@revision``) of a model in the Hugging Face cache.

    Returns
    -------
    Checkpoint
        Its tensors in natural order of names.

    Raises
    ------
    CheckpointError
        If there are no weights, more than one set of weights, or files that contradict each other.
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
    """Return where a path or a hub id (``org/name``, ``org/name@revision``) lies on this machine.

    A hub id is looked up in the Hugging Face cache; one that is not there comes back as the path it is not.
    """
    hub = split_hub_id(str(path))
    cached = None if hub is None else find_cached(*hub)
    return Path(path).expanduser() if cached is None else cached


def _open_directory(directory: Path, given: Path | None) -> Checkpoint:
    """Open the weights of a directory; `given` is the weight file that was named, if one was."""
    config, raw_config = _read_config(directory)
    weights = _find_weights(directory, config, None if given is None else given.name)
    if weights.name.endswith(".json"):
        tensors, shards, digests = _open_sharded(directory, weights)
    else:
        header = _read_weights(weights)
        tensors, shards, digests = header.tensors, (weights.name,), [header.digest]
    if given is not None and given.name not in (*shards, weights.name):
        raise CheckpointError(
            f"{given} is not among the weights of its directory ({weights.name}): "
            f"give the directory, or put the file alone into one as {SINGLE}"
        )
    if not tensors:
        raise CheckpointError(f"{weights} holds no tensors: save the model again")
    fingerprint = hashlib.sha256("|".join([hashlib.sha256(raw_config).hexdigest(), *shards, *digests]).encode())
    ordered = {name: tensors[name] for name in sorted(tensors, key=_natural)}
    return Checkpoint(directory, ordered, config, shards, fingerprint.hexdigest())


def _read_weights(file: Path) -> Header:
    return read_pickled(file) if file.suffix == ".bin" else read_header(file)


def _natural(name: str) -> list[tuple[int, str]]:
    """Order runs of digits by value (length, then digits), so that layers.2 comes before layers.10."""
    parts = re.split(r"([0-9]+)", name)
    return [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part) for i, part in enumerate(parts)]


def _read_config(directory: Path) -> tuple[dict[str, Any], bytes]:
    """Return config.json and its bytes; empty where there is none. Code it refers to is never run."""
    file = directory / "config.json"
    try:
        raw = read_document(file, MAX_CONFIG_BYTES, "config")
    except FileNotFoundError:
        return {}, b""
    return parse_json_object(raw, str(file), constants=True), raw


def _find_weights(directory: Path, config: dict[str, Any], given: str | None) -> Path:
    """Return the one weight file or index of a directory, in the loaders' order of precedence; `given` was named."""
    named = config.get("transformers_weights")
    if named is not None:
        if not isinstance(named, str) or not _is_plain_weight_name(named) or not (directory / named).is_file():
            raise CheckpointError(
                f"{directory / 'config.json'} names {named!r} as transformers_weights, which is no *.safetensors "
                "file or index in the same directory: fetch it, or remove the entry"
            )
        return directory / named
    for names in sorted(_SETS, key=lambda names: given not in names):
        found = _one_of(directory, *names)
        if found is not None:
            return found
    if given is None and (directory / PIPELINE).is_file():
        raise CheckpointError(explain_pipeline(directory))
    files = sorted(file for file in directory.iterdir() if _is_plain_weight_name(file.name) and file.is_file())
    indices = [file for file in files if file.name.endswith(".json")]
    loose = [file for file in files if file not in indices and file.name != "adapter_model.safetensors"]
    if len(indices) == 1:
        return indices[0]
    if len(loose) == 1 and not indices and not _SHARD.search(loose[0].name):
        return loose[0]
    pickled = _one_of(directory, BIN, BIN_INDEX) if bin_allowed() and not files else None
    if pickled is not None:
        return pickled
    raise CheckpointError(explain_no_weights(directory, (SINGLE, INDEX), [file.name for file in indices or loose]))


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
    return name.endswith((".safetensors", ".safetensors.index.json")) and _is_plain_name(name)


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
