"""Files of a model on the Hugging Face Hub, with the digests that the hub tells; their addresses hold the commit."""

import re

from dgviz.checkpoint.hub import explain_hub_error
from dgviz.checkpoint.remote.file import RemoteFile
from dgviz.errors import CheckpointError

_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>refs/[^/]+/[^/]+|[^/@]+))?(/(?P<inner>[^@]+))?")


def split_address(folder: str) -> tuple[str, str | None, str]:
    """Return repository, revision and folder inside of an address."""
    found = _ADDRESS.fullmatch(folder)
    if found is None:
        raise CheckpointError(
            f"{folder!r} is no model of the Hugging Face Hub: give hf://org/name, hf://org/name@revision, or a "
            "folder in it, hf://org/name@revision/unet"
        )
    return found["repo"], found["revision"], found["inner"] or ""


def list_files(folder: str) -> tuple[dict[str, RemoteFile], str]:
    """Return the files of a folder, and the commit that its revision stands for now."""
    from huggingface_hub import HfApi, errors, hf_hub_url

    repo, revision, inner = split_address(folder)
    try:
        commit = HfApi().model_info(repo, revision=revision, timeout=60).sha
        entries = list(HfApi().list_repo_tree(repo, inner or None, revision=commit))
    except (errors.HTTPError, errors.HFValidationError, errors.EntryNotFoundError, OSError) as error:
        raise CheckpointError(explain_hub_error(repo, revision, error)) from error
    files = {}
    for entry in entries:
        if hasattr(entry, "blob_id"):  # no folder
            digest = f"git:{entry.blob_id}" if entry.lfs is None else f"sha256:{entry.lfs.sha256}"
            address = hf_hub_url(repo, entry.path, revision=commit)
            files[entry.path.rpartition("/")[2]] = RemoteFile(address, entry.size, commit, digest)
    return files, commit
