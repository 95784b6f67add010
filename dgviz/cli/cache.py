"""``cache``: what dgviz remembers, how much of it, and how much it may."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from dgviz.checkpoint import cache_dir
from dgviz.checkpoint.fingerprint import forget_hashes
from dgviz.checkpoint.remote.record import mirrors
from dgviz.cli.options import print_columns, print_result
from dgviz.errors import CommandError
from dgviz.spectra.bound import read_limit, set_limit
from dgviz.spectra.store import SpectrumStore
from dgviz.words import count_bytes, size

_PARTS = {
    "spectra": "singular values and kept directions",
    "hashes": "of contents",
    "scores": "of models",
    "remote": "headers and small files of checkpoints at addresses",
}


def run(options: argparse.Namespace) -> int:
    """Show, clear or bound what is remembered."""
    if (options.action == "limit") != bool(options.size):
        raise CommandError(
            "cache limit SIZE sets the limit, e.g. cache limit 50GiB; cache show tells the present one"
        )
    store = SpectrumStore()
    if options.action == "limit":
        set_limit(store.root, count_bytes(options.size))
    elif options.action == "clear":
        store.clear()
        forget_hashes()
        shutil.rmtree(mirrors(), ignore_errors=True)
    found: dict[str, Any] = {"directory": str(cache_dir()), "limit": read_limit(store.root)}
    found["parts"] = {name: _bytes(name) for name in _PARTS}
    print_result(options, found, lambda: _print(found))
    return 0


def _bytes(part: str) -> int:
    """Return the bytes of one part: everything whose name begins like that."""
    files = [file for top in cache_dir().glob(f"*{part}*") for file in (top.rglob("*") if top.is_dir() else [top])]
    return sum(file.stat().st_size for file in files if file.is_file())


def _print(found: dict[str, Any]) -> None:
    """Print a line per part."""
    rows = [(size(nbytes), f"{name} {_PARTS[name]}") for name, nbytes in found["parts"].items()]
    print_columns(("size", f"in {Path(found['directory'])}"), rows)
    print(f"\nspectra may take {size(found['limit'])}; past that, what was used longest ago is forgotten")
