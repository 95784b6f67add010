"""The open pair: what its names mean, and its headers, read from disk once."""

import os
from pathlib import Path

import platformdirs

from dgviz.app.kept import kept
from dgviz.app.roots import confine, confine_address, confine_checkpoint, typed_path
from dgviz.app.state import View
from dgviz.checkpoint import Checkpoint, CheckpointPair, Preflight, inspect_pair, read_preflight
from dgviz.checkpoint.fingerprint import sample_contents
from dgviz.checkpoint.hub import cache_folder, split_hub_id
from dgviz.checkpoint.local import local_path
from dgviz.checkpoint.remote.address import parse_address
from dgviz.checkpoint.remote.mirror import find_mirror, open_mirror
from dgviz.demo import demo_paths
from dgviz.files import file_stamp

DEMO = "demo:"  # "demo:noisy" in a link stands for the built-in checkpoint of that name


def state_dir() -> Path:
    """Return where jobs and recent pairs are kept; ``DGVIZ_STATE_DIR`` overrides the platform's place."""
    return Path(os.environ.get("DGVIZ_STATE_DIR") or platformdirs.user_state_dir("dgviz"))


def checkpoint_path(name: str) -> Path:
    """Return what a path field or link means: a path, or a hub id or an address as it is."""
    built_in = demo_paths().get(name.removeprefix(DEMO)) if name.startswith(DEMO) else None
    if built_in is not None:
        return Path(built_in)
    address = parse_address(name)
    if address is not None:
        confine_address(str(address))
        return Path(str(address))
    if split_hub_id(name) is None:
        return confine_checkpoint(typed_path(name))
    confine(cache_folder())
    return Path(name)


def checkpoint_label(name: str) -> str:
    """Return a short name for a checkpoint."""
    if name.startswith(DEMO):
        return f"{name.removeprefix(DEMO)} (demo)"
    return "/".join(Path(name).parts[-2:]).lstrip("/")


def load_pair(view: View, include: str | None = None, exclude: str | None = None) -> CheckpointPair:
    """Return the pair in view, to be looked at; headers only, and again only when a file changed."""
    return _open(*_paths(view), include, exclude, _stamps(view))


def load_preflight(view: View) -> Preflight:
    """Return what is known of the pair in view before anything is computed; again only when a file changed."""
    return _preflight(*_paths(view), _stamps(view))


@kept
def _open(base: str, tuned: str, include: str | None, exclude: str | None, stamps: tuple) -> CheckpointPair:
    """Open a pair; the stamps are there to open it again when a file changed."""
    return inspect_pair(base, tuned, include, exclude)


@kept
def _preflight(base: str, tuned: str, stamps: tuple) -> Preflight:
    return read_preflight(_open(base, tuned, None, None, stamps))


def contents_of(checkpoint: Checkpoint) -> str:
    """Return what a checkpoint is known by in files that outlive the server: by what it holds, not by a date."""
    return _sampled(checkpoint.fingerprint, checkpoint)


@kept
def _sampled(fingerprint: str, _checkpoint: Checkpoint) -> str:
    return sample_contents(_checkpoint)


def _paths(view: View) -> tuple[str, str]:
    return str(checkpoint_path(view.base)), str(checkpoint_path(view.tuned))


def _stamps(view: View) -> tuple:
    return tuple(_stamp(_known(path)) for path in _paths(view))


def _known(path: str) -> Path:
    """Return where a checkpoint lies on this machine; of a remote one the mirror that is known."""
    address = parse_address(path)
    return local_path(path) if address is None else find_mirror(address) or open_mirror(address)


def _stamp(path: Path) -> tuple:
    """Return what changes when a checkpoint on disk does."""
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.glob("*") if file.suffix in (".safetensors", ".json"))
    return tuple((file.name, *file_stamp(file.stat())) for file in files if file.is_file())
