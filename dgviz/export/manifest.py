"""What an unfinished export leaves beside its files, so that the same command continues it and another is refused."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from dgviz.errors import ExportError
from dgviz.files import write_file

MANIFEST = ".dgviz-export.json"
LOCK = ".dgviz-export.lock"
PARTS = ".dgviz-parts"
"""Folder of what is finished: a record of every shard, or the pieces of an output that is put together last."""

_VERSION = 5
_OPTIONS = {"params": "--rule-param", "dgviz": "dgviz's version", "torch": "torch's version", "device": "--device"}
_OPTIONS |= {"facts": "what the method takes from the whole model"}


def read_manifest(target: Path) -> Mapping[str, Any] | None:
    """Return the manifest of an unfinished export, or None."""
    manifest = _read(target / MANIFEST)
    if manifest is not None and not (
        manifest.get("version") == _VERSION
        and isinstance(manifest.get("options"), dict)
        and isinstance(manifest.get("finished"), bool)
    ):
        raise _unknown(target / MANIFEST)
    return manifest


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object in a file of an unfinished export, or None where there is none."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({error}); delete the folder and export again") from None
    if not isinstance(content, dict):
        raise _unknown(path)
    return content


def _unknown(path: Path) -> ExportError:
    return ExportError(f"{path} is not what an export of this version leaves; delete the folder and export again")


def write_manifest(target: Path, options: Mapping[str, Any], finished: bool = False) -> dict[str, Any]:
    """Write the manifest of an export, and return it; `finished` when all that is left to do is to take it away."""
    manifest = {"version": _VERSION, "options": dict(options), "finished": finished}
    write_file(target / MANIFEST, orjson.dumps(manifest))
    return manifest


def drop_manifest(target: Path) -> None:
    """Remove what only an unfinished export needs.

    The manifest says first that all is finished, so that a run that is ended between two of these steps leaves
    nothing to be made again, and goes last, for it says whose the rest is.
    """
    write_manifest(target, read_manifest(target)["options"], finished=True)
    if (target / PARTS).is_dir():
        shutil.rmtree(target / PARTS)
    (target / MANIFEST).unlink()


def write_record(target: Path, shard: str, record: Mapping[str, Any]) -> None:
    """Write down that a shard is finished, and what it was made from."""
    (target / PARTS).mkdir(exist_ok=True)
    write_file(target / PARTS / f"{shard}.json", orjson.dumps(record))


def read_records(target: Path) -> dict[str, dict[str, Any]]:
    """Return the records of finished shards."""
    records = {shard: _read(target / PARTS / f"{shard}.json") for shard in _finished(target, ".json")}
    for shard, record in records.items():
        if record is None or not {"sha256", "bytes", "inputs", "samples", "rows"} <= record.keys():
            raise _unknown(target / PARTS / f"{shard}.json")
    return records


def finished_parts(target: Path, options: Mapping[str, Any]) -> frozenset[str]:
    """Return what an unfinished export with these options left complete; refuse any other content of the folder."""
    if not target.is_dir():
        return frozenset()
    try:
        names = sorted(path.name for path in target.iterdir() if path.name != LOCK and not _is_half(path.name))
    except OSError as error:
        raise ExportError(f"the output {target} cannot be read: {error.strerror}; choose another folder") from None
    if not names:
        return frozenset()
    manifest = read_manifest(target)
    if manifest is None:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ExportError(f"the output {target} is not empty (it holds {shown}); choose a new or empty folder")
    finished = frozenset(names) if manifest["finished"] else _finished(target, ".json", ".safetensors")
    if not finished and all(name in (MANIFEST, PARTS) or name.endswith(".partial") for name in names):
        return frozenset()  # an earlier run ended before its first file: nothing of it would be lost
    refuse_other_options(target, manifest["options"], options)
    return finished


def _is_half(name: str) -> bool:
    """Say whether a name is that of a manifest being written when an export ended."""
    return name.startswith(MANIFEST) and name.endswith(".partial")


def _finished(target: Path, *suffixes: str) -> frozenset[str]:
    """Return what is finished, by files of these suffixes."""
    found = [(path.name, suffix) for suffix in suffixes for path in (target / PARTS).glob(f"*{suffix}")]
    return frozenset(name.removesuffix(suffix) for name, suffix in found)


def refuse_other_options(target: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue an export with other options, and say which differ."""
    differing = [
        f"{_OPTIONS.get(key, f'--{key}')} was {_shown(before[key])} and is now {_shown(now[key])}"
        for key in now
        if key in before and before[key] != now[key]
    ]
    if differing:
        raise ExportError(
            f"the output {target} holds an unfinished export with other options: {'; '.join(differing)}; "
            "repeat the earlier command to finish it, or choose a new folder"
        )


def _shown(value: Any) -> str:
    """Return an option's value as one would type it."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items()) or "empty"
    return "not given" if value in (None, "", False) else "given" if value is True else str(value)


def remove_leftovers(target: Path) -> None:
    """Remove what an interrupted run left half-written: it has no final name."""
    for folder in (target, target / PARTS):
        if folder.is_dir():
            for path in folder.glob("*.partial"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
