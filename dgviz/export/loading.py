"""transformers in a process of its own, ready to load an output by the time that is written."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psutil

from dgviz.checkpoint.remote.outline import outline
from dgviz.export.copies import read_config
from dgviz.export.plan import ExportPlan
from dgviz.export.reload import compare
from dgviz.jobs.executor import Executor

_NEAR_END = 2**30  # bytes left to write when transformers begins to get ready, which takes it seconds and memory


class Loading:
    """transformers, which gets ready to load an output while that is still being written.

    In a process of its own, since importing it takes seconds and memory; in this one where that is done, unless there
    are logits to compare (see `dgviz.export.reload`). Leaving the ``with`` block ends the process.
    """

    def __init__(self, plan: ExportPlan, executor: Executor | None = None) -> None:
        self._plan = plan
        self._device = "cpu" if executor is None or executor.spread else executor.device
        self._folder: tempfile.TemporaryDirectory | None = None
        self._reference: Path | None = None  # whose values are not looked at
        self._held = ExitStack()
        self._process: subprocess.Popen | None = None
        self.refused = ""
        """Why logits are not compared."""

    def prepare(self, left: int) -> None:
        """Start when there are not many bytes left to write of a whole checkpoint."""
        early = self._folder is None and self._plan.format == "full" and left < _NEAR_END
        if early and not not_loadable(config := read_config(self._plan)):
            self._start(config)

    def _start(self, config: bytes) -> None:
        """Start with the config that the output will have."""
        self._folder = tempfile.TemporaryDirectory(prefix="dgviz-verify-")
        directory = Path(self._folder.name)
        pair = self._plan.pair
        side = pair.base if pair.tuned.is_adapter else pair.tuned  # an adapter has base's names
        self._reference = self._held.enter_context(outline(side.path))
        (directory / "config.json").write_bytes(config)
        self.refused = _too_large(self._plan)
        more = []
        if self._plan.check_logits is not False and not self.refused:
            (directory / "plan").write_bytes(pickle.dumps(self._plan))
            more = [str(directory / "plan"), self._device]
        if more or "transformers" not in sys.modules:
            self._process = _start_loading(directory, self._reference, more)

    def load(self, config: bytes, index: bytes | None) -> dict[str, Any]:
        """Return what came of loading the output, whose shards are written."""
        if self._folder is None:
            self._start(config)
        directory = Path(self._folder.name)
        for shard in self._plan.shards:
            (directory / shard.name).symlink_to((self._plan.out / shard.name).resolve())
        if self._plan.index_name and index is not None:
            (directory / self._plan.index_name).write_bytes(index)
        return load_with_transformers(directory, self._reference, self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._held.close()
        if self._folder is not None:
            self._folder.cleanup()


def _start_loading(directory: Path, reference: Path | None, more: Sequence[str]) -> subprocess.Popen:
    """Start a process that loads a checkpoint when it is told to."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if not any(word.startswith("cuda") for word in more):
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "dgviz.export.reload", str(directory)]
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command += [] if reference is None else [str(reference), *more]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def load_with_transformers(
    directory: Path, reference: Path | None = None, process: subprocess.Popen | None = None
) -> dict[str, Any]:
    """Load a checkpoint with transformers, without reading weights into memory; in a process that was started for it.

    Without one it is loaded in this process where transformers is imported here, else in one started now.
    """
    if process is None:
        if "transformers" in sys.modules:
            return compare(directory, reference)
        process = _start_loading(directory, reference, [])
    output, said = process.communicate("load\n")
    if process.returncode:
        last = (said.strip().splitlines() or ["no word"])[-1]
        return {"skipped": f"loading it ended with exit code {process.returncode}: {last[:300]}"}
    return dict(json.loads(output.splitlines()[-1]))


def not_loadable(config: bytes | None) -> str:
    """Return why transformers does not load an output with this config; empty where it may."""
    if config is None:
        return "there is no config.json"
    return "" if json.loads(config).get("model_type") else "config.json names no model_type"


def _too_large(plan: ExportPlan) -> str:
    """Return what is needed where both models take more than a quarter of the free memory, unless asked for."""
    needed = 2 * plan.total_bytes
    if plan.check_logits or needed <= psutil.virtual_memory().available / 4:
        return ""
    return f"{needed / 1e9:.1f} GB needed, more than a quarter of the free memory; --check-logits does it"
