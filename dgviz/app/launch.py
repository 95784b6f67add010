"""Serve the dashboard as it is packaged: its own script and options, wherever it is started."""

import errno
import os
import socket
import sys
import threading
import tomllib
import webbrowser
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streamlit import config
from streamlit.starlette import App

from dgviz.app.recents import note_opened
from dgviz.checkpoint.hub import split_hub_id
from dgviz.errors import CheckpointError, ServerError

_HERE = Path(__file__).parent


def serve(base: str | None = None, tuned: str | None = None, port: int | None = None, browser: bool = True) -> None:
    """Serve the dashboard on this machine until it is interrupted, and open it, with a pair, in the browser.

    Where no port is given, Streamlit's own variable STREAMLIT_SERVER_PORT names one; STREAMLIT_SERVER_HEADLESS=true
    opens no browser.
    """
    named = os.environ.get("STREAMLIT_SERVER_PORT", "")
    port = int(named) if port is None and named.isdecimal() else port
    browser = browser and os.environ.get("STREAMLIT_SERVER_HEADLESS", "").lower() not in ("true", "1")
    query = {"base": _absolute(base), "tuned": _absolute(tuned)} if base and tuned else {}
    if query:
        note_opened(query["base"], query["tuned"])
    options = app_options() | {"logger.hideWelcomeMessage": True}
    if port is not None:
        _check_free(options["server.address"], port)
        options["server.port"] = port

    @asynccontextmanager
    async def tell(_: App) -> AsyncIterator[None]:
        """Say where the dashboard is; by now the port is taken, and whoever comes early waits."""
        url = f"http://{config.get_option('server.address')}:{config.get_option('server.port')}/"
        url += f"?{urlencode(query)}" if query else ""
        print(f"The dashboard is at {url} (Ctrl-C ends it)", flush=True)
        if browser and not config.get_option("server.headless"):
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        yield

    # Streamlit looks for a config.toml at home, in the working directory and beside the script; none of them is ours.
    config.get_config_files = lambda name: []
    # It puts the folder of the program's name first among those that modules are imported from.
    sys.argv = [str(_HERE.parent)]
    try:
        App(_HERE / "main.py", lifespan=tell).run(config=options)
    except KeyboardInterrupt:
        print("The dashboard has ended", flush=True)


def app_options() -> dict[str, Any]:
    """Return Streamlit's options for the dashboard by their dotted names."""
    return dict(_leaves(tomllib.loads((_HERE / "config.toml").read_text(encoding="utf-8"))))


def _leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables under their dotted names."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _absolute(name: str) -> str:
    """Return a checkpoint's name as a link carries it: a demo's or hub id as it is, a path from the root."""
    if name.startswith("demo:") or split_hub_id(name) is not None:
        return name
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: give a checkpoint's folder or a hub id (org/name)")
    return str(path)


def _check_free(address: str, port: int) -> None:
    """Refuse a port that cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OverflowError:
            raise ServerError(f"port {port} does not exist: give --port a number from 0 to 65535") from None
        except OSError as error:
            why = "in use by another program" if error.errno == errno.EADDRINUSE else f"refused ({error.strerror})"
            raise ServerError(
                f"port {port} of {address} is {why}: "
                "give --port another number, or leave it out and a free port is found"
            ) from error
