"""Files of web servers, by ranges: every answer is checked to be of the range and the contents that were asked for.

Tokens come from the environment and go to the host that they are for, by https; a redirect to another host takes none
along (the client drops them).
"""

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from dgviz.checkpoint.remote.file import (
    ContentsChanged,
    Interrupted,
    RemoteFile,
    attempts,
    explain_changed,
    explain_offline,
)
from dgviz.errors import CheckpointError

TOKENS = "DGVIZ_HTTP_TOKENS"
_RANGE = re.compile(r"bytes (?P<range>\d+-\d+)/(?P<size>\d+)")
_SECONDS = 60.0  # without a byte, after which a connection counts as broken
_BUSY = 408, 429, 500, 502, 503, 504
_ABSENT = 404, 410
_CLOSED = 401, 403


def find_files(folder: str, names: Iterable[str]) -> tuple[dict[str, RemoteFile], str]:
    """Ask a web server for files by their names, for it has no list of them.

    Returns
    -------
    dict of str to RemoteFile
        Those that are there.
    str
        What the server said of the others, in words.
    """
    names = list(names)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda name: _find_file(f"{folder}/{name}"), names))
    said = sorted({answer for answer in found if isinstance(answer, str)})
    files = {name: file for name, file in zip(names, found, strict=True) if isinstance(file, RemoteFile)}
    return files, ", ".join(said)


def iter_range(file: RemoteFile, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a range as they come."""
    if begin == end:
        return
    with _answered(file.address, begin, end) as answer:
        if answer.status_code in _CLOSED:
            raise CheckpointError(f"{file.address} {_refused(answer.status_code)}")
        if answer.status_code in (*_ABSENT, 416):
            raise ContentsChanged(explain_changed(file.address))
        told = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        packed = answer.headers.get("content-encoding", "identity") != "identity"
        if answer.status_code != 206 or told is None or packed:
            raise CheckpointError(_without_ranges(file.address, answer.status_code))
        # What the hub answers with is another server's, under a commit: the address tells the contents.
        stamp = file.stamp if file.digest else _stamp(answer.headers)
        if int(told["size"]) != file.size or stamp != file.stamp:
            raise ContentsChanged(explain_changed(file.address))
        if told["range"] != f"{begin}-{end - 1}":
            raise Interrupted(f"bytes {told['range']} came where {begin}-{end - 1} were asked for")
        yield from answer.iter_raw()


def _find_file(address: str) -> RemoteFile | str:
    """Return a file, or what the server says instead."""
    for problem in attempts(address):
        try:
            with _answered(address, 0, 1) as answer:
                status, headers = answer.status_code, answer.headers
        except Interrupted as error:
            problem.append(str(error))
    if status in _ABSENT:
        return "it is not there"
    if status in _CLOSED:
        return _refused(status)
    told = _RANGE.fullmatch(headers.get("content-range", ""))
    if status == 416:  # an empty file has no byte to ask for
        return "it is empty"
    if status != 206 or told is None:
        raise CheckpointError(_without_ranges(address, status))
    if not _stamp(headers):
        raise CheckpointError(
            f"{address} comes without an ETag and a date of its last change, so that nothing would tell when its "
            "contents change: download the files, and give their folder"
        )
    return RemoteFile(address, int(told["size"]), _stamp(headers))


@contextmanager
def _answered(address: str, begin: int, end: int) -> Iterator[Any]:
    """Ask for a range; what may pass is raised as `Interrupted`."""
    from huggingface_hub import errors, get_session

    headers = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}", **_credentials(address)}
    try:
        with get_session().stream("GET", address, headers=headers, timeout=_SECONDS) as answer:
            if answer.status_code in _BUSY:
                raise Interrupted(f"the server answers {answer.status_code}")
            yield answer
    except errors.OfflineModeIsEnabled as error:
        raise CheckpointError(explain_offline(address)) from error
    except errors.HTTPError as error:
        raise Interrupted(" ".join(str(error).split())[:160] or type(error).__name__) from error


def _credentials(address: str) -> dict[str, str]:
    """Return the header with the token for an address, from the environment."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    if address.startswith(f"{constants.ENDPOINT}/"):
        return build_hf_headers()
    parts = urlsplit(address)
    known = dict(item.strip().split("=", 1) for item in os.environ.get(TOKENS, "").split(",") if "=" in item)
    token = known.get(parts.netloc)
    return {"Authorization": f"Bearer {token}"} if token and (parts.scheme == "https" or _is_here(parts)) else {}


def _is_here(parts: Any) -> bool:
    """Say whether a host is this machine, to which a token may go unencrypted."""
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _stamp(headers: Any) -> str:
    return headers.get("etag") or headers.get("last-modified") or ""


def _refused(status: int) -> str:
    return (
        f"is refused by its server ({status}): log in by a token in the environment ({TOKENS}=HOST=TOKEN; for the "
        "Hugging Face Hub, HF_TOKEN)"
    )


def _without_ranges(address: str, status: int) -> str:
    if status == 200:
        return (
            f"{address}: its server sends whole files only, no ranges of bytes: download the files, and give their "
            "folder"
        )
    return f"{address}: its server answers {status} to a range of bytes: check the address, or download the files"
