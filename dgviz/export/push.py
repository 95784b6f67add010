"""Upload of a finished output to the Hugging Face Hub."""

import os
from pathlib import Path

from dgviz.checkpoint.hub import HUB_ID
from dgviz.command import Command
from dgviz.errors import ExportError, ExportFailedError
from dgviz.export.manifest import MANIFEST
from dgviz.export.plan import ADAPTER_CONFIG, REPORT, ExportPlan
from dgviz.files import read_record


def check_repository(repository: str) -> str:
    """Return the name of a repository on the hub."""
    found = HUB_ID.fullmatch(repository)
    if found is None or found["revision"] or ".." in repository or "--" in repository:
        raise ExportError(f"{repository!r} is no name of a repository on the hub; give ORG/NAME")
    return repository


def refuse_local_base(plan: ExportPlan) -> None:
    """Refuse to upload an adapter that will name its base by a path of this machine."""
    if plan.format == "lora" and plan.base_id is None:
        raise ExportError(
            f"an adapter names its base, and {plan.pair.base.path} is a folder of this machine, which nobody who "
            "downloads the adapter has; give --base-name ORG/NAME to upload it"
        )


def _refuse_path(out: Path) -> None:
    """Refuse a finished adapter that names its base by a path of this machine."""
    config = out / ADAPTER_CONFIG
    base = str((read_record(config, "base_model_name_or_path") or {}).get("base_model_name_or_path", ""))
    if Path(base).is_absolute():
        raise ExportError(
            f"{out} is an adapter that names its base by a path of this machine ({base}), which nobody who downloads "
            "it has; export it again with --base-name ORG/NAME"
        )


def _hidden(out: Path) -> list[str]:
    """Return patterns of the hidden files and folders that are not uploaded: all but scores."""
    names = (path for path in out.iterdir() if path.name.startswith(".") and path.name != ".eval_results")
    return [f"{path.name}/*" if path.is_dir() else path.name for path in names]


def push(out: Path, repository: str, private: bool = False) -> str:
    """Upload a finished output, its card included, into a new or empty repository, and return its address.

    Who uploads is decided by ``HF_TOKEN`` or the hub's own login (``hf auth login``); nothing is asked or kept here.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import disable_progress_bars

    check_repository(repository)
    if not (out / REPORT).is_file() or (out / MANIFEST).exists():
        raise ExportError(f"{out} holds no finished export; finish it, then upload it")
    _refuse_path(out)
    disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    again = f"{out} is complete; upload it later by: {Command('push', out=out, repository=repository)}"
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        held = [name for name in api.list_repo_files(repository) if name != ".gitattributes"]
        if held:
            raise ExportFailedError(
                f"{repository} on the hub holds {len(held)} files already ({held[0]} ...), which an upload would "
                f"replace: choose another name; {again}"
            )
        api.upload_folder(
            repo_id=repository,
            folder_path=out,
            ignore_patterns=_hidden(out),
            commit_message="Repaired by dgviz",
        )
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: of the parts of a large file
        cause = " ".join(f"{error} {error.__cause__ or ''}".split())[:300]
        raise ExportFailedError(f"the hub did not take {repository} ({cause}); {again}") from error
    return str(made)
