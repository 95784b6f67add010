"""Which folders a server may open and write: all of them for the person at the machine, named ones for anybody else.

A server that listens to other machines gives every visitor the reach of the account it runs under. Then paths, typed
or in a link, are confined to the folders in ``DGVIZ_ROOTS``; where that is set, a server for this machine is confined
as well. Addresses on other machines are confined to those in ``DGVIZ_REMOTE_ROOTS`` wherever paths are confined.
"""

import ipaddress
import os
from pathlib import Path

import streamlit as st

from dgviz.errors import AccessError
from dgviz.opening import (
    REMOTE_ROOTS,
    ROOTS,
    comes_with_dgviz,
    lies_in,
    named_addresses,
    named_roots,
    refusal,
    refuse_address,
)


def allowed_roots() -> tuple[Path, ...] | None:
    """Return the folders that paths are confined to, resolved; None where every path is allowed."""
    roots = named_roots()
    return roots if roots or not _is_loopback(st.get_option("server.address")) else None


def typed_path(text: str) -> Path:
    """Return the path that was typed, home folders by their whole paths."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise AccessError(
            f"{text} is not opened: nobody of that name has a home here; give the whole path"
        ) from error


def confine(path: Path) -> Path:
    """Return a path that this server may open or write."""
    roots = allowed_roots()
    if roots is not None and not _inside(path, roots):
        if not roots:
            raise AccessError(
                f"{path} is not opened: this server can be reached from other machines and names no folders to open; "
                f"set {ROOTS} to them (separated by {os.pathsep!r}) where it is started"
            )
        raise AccessError(refusal(path, roots))
    return path


def confine_checkpoint(path: Path) -> Path:
    """Return the path of a checkpoint that this server may open, with every link in its folder."""
    if comes_with_dgviz(_real(path)):
        return path
    confine(path)
    if allowed_roots() is not None:
        folder = path if path.is_dir() else path.parent
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_symlink():
                confine(entry)
    return path


def confine_address(address: str) -> None:
    """Raise where this server may not open an address on another machine."""
    if allowed_roots() == () and named_addresses() is None:
        raise AccessError(
            f"{address} is not opened: this server can be reached from other machines and names no addresses to "
            f"open; set {REMOTE_ROOTS} to them (separated by blanks) where it is started"
        )
    refuse_address(address)


def writable_home() -> Path:
    """Return where exports are suggested: the home folder, or the first folder this server may write."""
    return (allowed_roots() or (Path.home(),))[0]


def _inside(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(lies_in(_real(path), root) for root in roots)


def _real(path: Path) -> str:
    """Return where a path leads; empty where no path is written so."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a null byte, a loop of links
        return ""


def _is_loopback(address: str | None) -> bool:
    """Say whether a server at an address is for this machine only; Streamlit takes no address for all of them."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
