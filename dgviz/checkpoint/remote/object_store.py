"""Files of object stores (S3, Google Cloud Storage), by fsspec and the package of each store, if it is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dgviz.checkpoint.remote.file import (
    ContentsChanged,
    Interrupted,
    RemoteFile,
    explain_changed,
    explain_offline,
    is_offline,
)
from dgviz.errors import CheckpointError, PackageError
from dgviz.packages import need

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""What must be installed for each kind of address."""
_STAMPS = "ETag", "etag", "generation", "md5Hash"


def list_files(folder: str) -> dict[str, RemoteFile]:
    """Return the files of a folder, which is all names of a bucket that begin alike."""
    with _sentences(folder):
        store = _store(folder)
        store.invalidate_cache()
        entries = store.ls(folder, detail=True)
    scheme = folder.partition("://")[0]
    files = {}
    for entry in entries:
        name = entry["name"].rpartition("/")[2]
        if entry["type"] == "file" and name:
            files[name] = RemoteFile(f"{scheme}://{entry['name']}", int(entry["size"]), _stamp(entry))
    return files


def iter_range(file: RemoteFile, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a range."""
    with _sentences(file.address):
        yield _store(file.address).cat_file(file.address, start=begin, end=end) if begin < end else b""


def refuse_changed(file: RemoteFile) -> None:
    """Raise where a file is not what it was when it was opened; asked after it was read."""
    with _sentences(file.address):
        store = _store(file.address)
        store.invalidate_cache()
        found = store.info(file.address)
    if (int(found["size"]), _stamp(found)) != (file.size, file.stamp):
        raise ContentsChanged(explain_changed(file.address))


def _store(address: str) -> Any:
    """Return the store of an address; fsspec keeps one for each kind."""
    import fsspec

    if is_offline():
        raise CheckpointError(explain_offline(address))
    return fsspec.filesystem(address.partition("://")[0], use_listings_cache=False)


def _stamp(entry: Any) -> str:
    return next((str(entry[name]) for name in _STAMPS if entry.get(name)), "")


@contextmanager
def _sentences(address: str) -> Iterator[None]:
    """Turn what goes wrong in a store into a sentence; what may pass into `Interrupted`."""
    scheme = address.partition("://")[0]
    try:
        yield
    except ImportError as error:
        try:
            need(address, PACKAGES[scheme])
        except PackageError as missing:
            raise CheckpointError(str(missing)) from error
        raise CheckpointError(f"{address} cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"there is nothing at {address}: check the bucket and the name") from error
    except PermissionError as error:
        raise CheckpointError(
            f"{address} is refused by its store: give credentials in the environment, as its own tools read them"
        ) from error
    except (TimeoutError, ConnectionError) as error:
        raise Interrupted(_cause(error)) from error
    except CheckpointError:
        raise
    except Exception as error:  # each store has errors of its own
        raise CheckpointError(f"{address} cannot be read ({_cause(error)}): check address and credentials") from error


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
