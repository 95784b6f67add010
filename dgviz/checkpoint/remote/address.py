"""Addresses of checkpoints that are not on this machine: ``hf://``, ``https://``, ``s3://`` and ``gs://``."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from dgviz.errors import CheckpointError

# One slash will do: a path that was made of an address has lost the other.
_ADDRESS = re.compile(r"(?P<scheme>hf|https?|s3|gs):/{1,2}(?P<rest>[^/].*)", re.DOTALL)
_FILE = re.compile(r"[^/]+\.safetensors(\.index(\.[\w-]+)?\.json)?")


@dataclass(frozen=True)
class Address:
    """Where a remote checkpoint lies.

    Attributes
    ----------
    scheme : str
        ``hf``, ``https``, ``http``, ``s3`` or ``gs``.
    folder : str
        The whole address of its folder, without a slash at the end.
    file : str
        Name of the weight file that is meant, if one is; else empty.
    """

    scheme: str
    folder: str
    file: str = ""

    def __str__(self) -> str:
        """Return the address as it is typed."""
        return f"{self.folder}/{self.file}" if self.file else self.folder


def parse_address(text: str) -> Address | None:
    """Return the address that a text is; None for what is none, or is a path that exists.

    Raises
    ------
    CheckpointError
        If it could lead elsewhere than it reads, or holds a secret.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or Path(text).exists():
        return None
    scheme, parts = found["scheme"], found["rest"].rstrip("/").split("/")
    if any(unquote(part) in ("", ".", "..") or re.search(r"[\x00-\x20\\\x7f]", unquote(part)) for part in parts):
        raise CheckpointError(f"{text!r} is no plain address: give one without blanks, '..' and empty folders")
    if scheme.startswith("http") and ("@" in parts[0] or re.search("[?#]", found["rest"])):
        raise CheckpointError(
            "an address of https with a user, a '?' or a '#' in it is not read, for it would be shown and stored "
            "with its secret: give the plain address, and a token in DGVIZ_HTTP_TOKENS"
        )
    file = parts.pop() if len(parts) > 1 and _FILE.fullmatch(parts[-1]) else ""
    return Address(scheme, f"{scheme}://{'/'.join(parts)}", file)
