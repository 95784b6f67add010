"""Models named as on the Hugging Face Hub, ``org/name`` or ``org/name@revision``: planned, fetched, found again.

A path that exists is always a path; only what is none is taken for a hub id. Only what is read is fetched: weights in
safetensors, their index, configs and tokenizers; never code.
"""

import glob
import io
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgviz.command import Command
from dgviz.errors import CheckpointError

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w][\w./-]*))?")

WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*")
UNWANTED = ("consolidated*", "original*")  # the same weights once more, under the trainer's own names
_FOLDER = "additional_chat_templates/"


@dataclass(frozen=True)
class HubPlan:
    """What fetching a model means.

    Attributes
    ----------
    repo, commit : str
        The repository and the exact commit that its revision stands for now.
    files : tuple of (str, int)
        Names and sizes in bytes of what is to be fetched.
    cached : tuple of (str, int)
        What is there already.
    """

    repo: str
    commit: str
    files: tuple[tuple[str, int], ...]
    cached: tuple[tuple[str, int], ...]

    @property
    def nbytes(self) -> int:
        """Bytes to fetch."""
        return sum(size for _, size in self.files)


def cache_folder() -> Path:
    """Return the folder of the Hugging Face cache: ``HF_HUB_CACHE``, ``HF_HOME`` or the user's own."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def split_hub_id(text: str) -> tuple[str, str | None] | None:
    """Return repository and revision of a hub id; None for what cannot be one, or is a path that exists."""
    found = HUB_ID.fullmatch(text)
    if found is None or ".." in text or "--" in found["repo"] or Path(text).expanduser().exists():
        return None
    return found["repo"], found["revision"]


def explain_missing_path(text: str, error: Exception) -> str:
    """Say why a path cannot be opened; a path that reads like a Hugging Face id is told how to fetch it."""
    hub = split_hub_id(text)
    if hub is not None:
        return (
            f"there is no directory {text!r}, and no model of this id in the Hugging Face cache: "
            f"fetch it by `{Command('fetch', model=text)}` or on the Open page, look at it where it lies "
            f"(hf://{text}), or give a directory"
        )
    cause = (getattr(error, "strerror", None) or str(error)).lower()
    return f"{text!r} cannot be opened ({cause}): give an existing directory of *.safetensors weights"


def plan_download(repo: str, revision: str | None = None) -> HubPlan:
    """Ask the hub what a model consists of; nothing is fetched."""
    listed = _call(repo, revision, WANTED, dry_run=True, tqdm_class=_counting_bar()[0])
    wanted = [item for item in listed if "/" not in item.filename.removeprefix(_FOLDER)]
    if not any(item.filename.endswith(".safetensors") for item in wanted):
        if any(item.filename == "model_index.json" for item in wanted):
            raise CheckpointError(
                f"{repo} is a diffusers pipeline of several models: download it (hf download {repo}) and give the "
                "directory of one component, e.g. its unet"
            )
        raise CheckpointError(
            f"{repo} on the Hugging Face Hub has no *.safetensors weights: give another revision or model"
        )
    files, cached = (
        tuple((item.filename, item.file_size) for item in wanted if item.will_download == fetch)
        for fetch in (True, False)
    )
    return HubPlan(repo, wanted[0].commit_hash, files, cached)


def iter_fetch(plan: HubPlan, heartbeat: float = 0.5) -> Iterator[int]:
    """Fetch what a plan lists into the cache and yield the bytes fetched so far, at every heartbeat and at the end.

    The plan's commit is fetched, whatever the revision has become since; `find_cached` then has its directory. Left
    early, the download stops; files that are complete are kept and not fetched again.
    """
    _check_room(plan)
    names = [glob.escape(name) for name, _ in (*plan.files, *plan.cached)]
    bar, seen, stop = _counting_bar()
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(_call, plan.repo, plan.commit, names, tqdm_class=bar)
        try:
            while wait([download], heartbeat).not_done:
                yield min(plan.nbytes, max(seen(), default=0))
        finally:
            stop.set()
    download.result()
    yield plan.nbytes


def _check_room(plan: HubPlan) -> None:
    """Refuse a download that the disk of the cache cannot hold."""
    folder = cache_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if plan.nbytes > free:
        raise CheckpointError(
            f"{plan.repo} needs {plan.nbytes:,} bytes, and the disk of the Hugging Face cache {folder} has {free:,} "
            "left: make room, or set HF_HOME to a larger disk"
        )


def _counting_bar() -> tuple[type, Any, threading.Event]:
    """Return a silent progress bar for huggingface_hub, the bytes its bars count, and what makes them stop."""
    from tqdm import tqdm

    bars: list[tqdm] = []
    stop = threading.Event()

    class CountingBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"file": io.StringIO()})
            bars.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            if stop.is_set():
                raise InterruptedError("the download was given up")
            return super().update(n)

    return CountingBar, lambda: [int(bar.n) for bar in list(bars) if bar.unit == "B"], stop


def find_cached(repo: str, revision: str | None = None) -> Path | None:
    """Return the directory of a model in the hub's cache, without asking the hub; None where it is not there.

    The directory may lack files of an interrupted download: opening it checks every shard.
    """
    return _look_up(repo, revision)[0]


def is_cached_whole(repo: str, revision: str | None = None) -> bool:
    """Say whether a model is in the hub's cache with every file that its download was to bring.

    Where the cache does not tell what was to come, what is there counts as all of it.
    """
    return _look_up(repo, revision, ignore_patterns=[*UNWANTED, "*/*"])[1]  # folders hold nothing that is opened


def _look_up(repo: str, revision: str | None, **options: Any) -> tuple[Path | None, bool]:
    """Return the directory of a model in the cache, or None, and whether all of it is there."""
    from huggingface_hub import errors, snapshot_download

    wanted = {"revision": revision, "allow_patterns": list(WANTED), "local_files_only": True}
    try:
        return Path(snapshot_download(repo, **wanted, **options)), True
    except errors.IncompleteSnapshotError as error:
        return Path(error.snapshot_path), False
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return None, False


def _call(repo: str, revision: str | None, patterns: "Sequence[str]", **options: Any) -> Any:
    """Call snapshot_download, its errors as sentences."""
    from huggingface_hub import errors, snapshot_download

    try:
        return snapshot_download(
            repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(UNWANTED), **options
        )
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        # What the hub answered may be the cause of "neither reachable nor cached".
        answer = error.__cause__ if isinstance(error.__cause__, errors.HfHubHTTPError) else error
        raise CheckpointError(explain_hub_error(repo, revision, answer)) from error


def explain_hub_error(repo: str, revision: str | None, error: Exception) -> str:
    """Say what an error of huggingface_hub means for the user."""
    from huggingface_hub import errors

    name = repo if revision is None else f"{repo}@{revision}"
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated: accept its terms at its page on the Hugging Face Hub, then log in (hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: give a branch, a tag or a commit"
    if isinstance(error, errors.RepositoryNotFoundError):
        where = f"there is no model {repo!r} on the Hugging Face Hub, or it is private"
        return f"{where}: check the name, or log in (hf auth login)"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | errors.DryRunError):
        if find_cached(repo, revision) is not None:
            return (
                f"the Hugging Face Hub cannot be reached to say whether {name} in the cache is whole and the latest: "
                "open it as it is, or go online"
            )
        return (
            f"{name} is not in the cache and the Hugging Face Hub cannot be reached: go online, or give a directory"
        )
    cause = " ".join(str(error).split())[:160]
    return f"{name} cannot be fetched from the Hugging Face Hub ({cause}): try again"
