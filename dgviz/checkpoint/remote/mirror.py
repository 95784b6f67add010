"""Mirrors of remote checkpoints: small files as they are, weight files up to the end of their headers.

To whatever opens folders a mirror is one. No loader takes its weights for whole: a file that ends behind its header
is refused as incomplete. `dgviz.checkpoint.read` brings what lies behind, range by range.
"""

import fnmatch
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dgviz.checkpoint.documents import MAX_CONFIG_BYTES, MAX_INDEX_BYTES
from dgviz.checkpoint.header import MAX_HEADER_BYTES
from dgviz.checkpoint.hub import UNWANTED, WANTED, cache_folder, find_cached, is_cached_whole
from dgviz.checkpoint.remote import http, hugging_face, object_store
from dgviz.checkpoint.remote.address import Address
from dgviz.checkpoint.remote.file import RemoteFile, explain_offline, is_offline
from dgviz.checkpoint.remote.record import is_mirror, mirrors, ref_of, short_hash, write_mirror_record
from dgviz.checkpoint.remote.transfer import STREAMS, read_range, read_whole
from dgviz.errors import CheckpointError
from dgviz.files import read_json, write_file, write_json
from dgviz.opening import lies_in, named_roots, refuse_address
from dgviz.words import size

INDEX = "model.safetensors.index.json"
_FIRST_BYTES = 64 * 2**10
"""What is read of a weight file at first: most headers end in it."""
_STEMS = "model", "diffusion_pytorch_model", "adapter_model", "pytorch_lora_weights", "adapters"
_KNOWN = (
    *(f"{stem}.safetensors" for stem in _STEMS),
    *(f"{stem}.safetensors.index.json" for stem in _STEMS[:2]),
    *("config.json", "generation_config.json", "adapter_config.json", "model_index.json", "modules.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json", "README.md", "LICENSE", "NOTICE"),
)
"""What a web server is asked for, which has no list of its files."""
_DOCUMENTS = *(pattern for pattern in WANTED if pattern != "*.safetensors"), "README.md"


def open_mirror(address: Address) -> Path:
    """Return the folder, or the weight file in it, that stands for a remote checkpoint as it is now.

    Raises
    ------
    CheckpointError
        If it is not there, may not be read, cannot be reached, or holds no weights.
    AccessError
        If this server may not open the address.
    """
    refuse_address(str(address))
    cached = _downloaded(address)
    if cached is not None:
        return cached / address.file
    if is_offline():
        known = find_mirror(address)
        if known is None:
            raise CheckpointError(explain_offline(str(address)))
        return known
    if address.scheme == "hf":
        files, commit = hugging_face.list_files(address.folder)
        repo, _, inner = hugging_face.split_address(address.folder)
        folder = mirrors() / f"models--{repo.replace('/', '--')}" / "snapshots" / commit / inner
    else:
        files = _ask_server(address) if address.scheme.startswith("http") else object_store.list_files(address.folder)
        state = json.dumps(sorted((name, file.identity) for name, file in files.items()))
        name = address.folder.rpartition("/")[2]
        folder = mirrors() / address.scheme / short_hash(address.folder) / short_hash(state) / name
    try:
        if not is_mirror(folder):
            _make(folder, address, files)
        ref_of(address.folder).parent.mkdir(parents=True, exist_ok=True)
        write_json(ref_of(address.folder), {"folder": folder}, durable=False)
    except OSError as error:
        raise CheckpointError(
            f"what is kept of {address} cannot be written to {mirrors()} ({error.strerror or error}): make room, or "
            "set DGVIZ_CACHE_DIR to another disk"
        ) from error
    return folder / address.file


def find_mirror(address: Address) -> Path | None:
    """Return what `open_mirror` returned last, asking nobody; None where there is none."""
    found = _downloaded(address)
    if found is None:
        known = read_json(ref_of(address.folder)) if ref_of(address.folder).is_file() else None
        found = Path(known["folder"]) if known is not None and is_mirror(Path(known["folder"])) else None
    return None if found is None else found / address.file


def _downloaded(address: Address) -> Path | None:
    """Return the folder of a model that lies in the Hugging Face cache with all its files."""
    if address.scheme != "hf":
        return None
    repo, revision, inner = hugging_face.split_address(address.folder)
    roots = named_roots()
    if roots and not any(lies_in(os.path.realpath(cache_folder()), root) for root in roots):
        return None
    if inner or not is_cached_whole(repo, revision):
        return None
    return find_cached(repo, revision)


def _ask_server(address: Address) -> dict[str, RemoteFile]:
    """Return the files of a folder of a web server: those of the usual names, and the shards that an index names."""
    files, said = http.find_files(address.folder, dict.fromkeys((*_KNOWN, *([address.file] if address.file else []))))
    shards = {shard for name, file in files.items() if ".index." in name for shard in _shards(file)}
    missing = shards - files.keys()
    files |= http.find_files(address.folder, sorted(missing))[0] if missing else {}
    if not any(name.endswith(".safetensors") for name in files):
        raise CheckpointError(
            f"{address} has no weights under a usual name (model.safetensors, {INDEX}; {said}): give the address of "
            "the folder, or of the weight file"
        )
    return files


def _shards(index: RemoteFile) -> Iterable[str]:
    """Return the file names in an index; what else is wrong with it is said where it is opened."""
    if index.size > MAX_INDEX_BYTES:
        return ()
    try:
        named = json.loads(read_whole(index))["weight_map"].values()
        return {name for name in named if isinstance(name, str) and "/" not in name}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _make(folder: Path, address: Address, files: dict[str, RemoteFile]) -> None:
    """Bring the small files and the headers of weights, several at once."""
    weights = [name for name in files if _fits(name, ("*.safetensors",)) and not _fits(name, UNWANTED)]
    if not weights:
        raise CheckpointError(_without_weights(address, files))
    documents = [name for name, file in files.items() if _fits(name, _DOCUMENTS) and file.size <= _most(name)]
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(STREAMS) as pool:
        bring = [pool.submit(_bring, folder / name, files[name], name in weights) for name in (*weights, *documents)]
        for brought in bring:
            brought.result()
    write_mirror_record(folder, address.folder, {name: files[name] for name in weights})


def _bring(place: Path, file: RemoteFile, is_weights: bool) -> None:
    write_file(place, _read_header(file) if is_weights else read_whole(file), durable=False)


def _read_header(file: RemoteFile) -> bytes:
    """Return a weight file up to the end of its header; some of it where that is none, for whoever judges it."""
    first = bytes(read_range(file, 0, min(file.size, _FIRST_BYTES)))
    end = 8 + int.from_bytes(first[:8], "little")
    if end <= len(first) or end > min(file.size, 8 + MAX_HEADER_BYTES):
        return first[:end]
    return first + read_range(file, len(first), end - len(first))


def _without_weights(address: Address, files: dict[str, RemoteFile]) -> str:
    if "model_index.json" in files:
        return (
            f"{address} is a diffusers pipeline of several models, each a checkpoint of its own: give the folder of "
            f"one, such as {address}/unet"
        )
    there = ", ".join(f"{name} ({size(file.size)})" for name, file in sorted(files.items())[:4]) or "nothing"
    return f"{address} holds no *.safetensors weights (it holds {there}): give the folder that does"


def _most(name: str) -> int:
    """Return the most bytes that a small file has; what is larger is none, and is not brought."""
    return MAX_INDEX_BYTES if ".index." in name or name == "tokenizer.json" else MAX_CONFIG_BYTES


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
