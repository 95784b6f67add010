"""Serve the dashboard as it is packaged: its own script and options, wherever it is started, behind a token."""

import errno
import html
import ipaddress
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import tomllib
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.middleware import Middleware
from starlette.types import ASGIApp
from streamlit import config
from streamlit.starlette import App
from streamlit.web.server.server_util import get_display_address, get_url

from dgviz.app.addresses import Addresses
from dgviz.app.document import document, plain_document
from dgviz.app.guard import Guard, inline_scripts
from dgviz.app.navigation import load_places
from dgviz.app.recents import note_typed
from dgviz.app.uploads import BoundUploads
from dgviz.checkpoint.hub import split_hub_id
from dgviz.errors import CheckpointError, ServerError

_HERE = Path(__file__).parent
MAIN = _HERE / "main.py"
"""The one script of the dashboard."""
TOKEN = "DGVIZ_TOKEN"
_HOST = re.compile(r"\*|(\*\.)?[\w.-]+|\[?[0-9a-fA-F:.]+\]?", re.ASCII)


def serve(
    base: str | None = None,
    tuned: str | None = None,
    port: int | None = None,
    listen: str = "127.0.0.1",
    browser: bool = True,
    token: bool = True,
    hosts: Iterable[str] = (),
    frame_ancestors: str = "",
) -> None:
    """Serve the dashboard until it is interrupted, and open it, with a pair, in the browser.

    It listens at an address of this machine, by default the one that nobody else reaches. Where no port is given,
    Streamlit's own variable STREAMLIT_SERVER_PORT names one; STREAMLIT_SERVER_HEADLESS=true opens no browser. Without
    a token whoever reaches the port is let in; then the pages of one origin may frame the dashboard. `hosts` are
    names the server goes by, beside those of this machine for itself.
    """
    named = os.environ.get("STREAMLIT_SERVER_PORT", "")
    port = int(named) if port is None and named.isdecimal() else port
    browser = browser and os.environ.get("STREAMLIT_SERVER_HEADLESS", "").lower() not in ("true", "1")
    query = {"base": _absolute(base), "tuned": _absolute(tuned)} if base and tuned else {}
    if query:
        note_typed(query["base"], query["tuned"])
    options = app_options()
    options["server.address"] = _checked_address(listen)
    options["server.allowedHosts"] += [_checked_host(host) for host in hosts]
    if frame_ancestors:
        _check_origin(frame_ancestors, token)
        # In a frame of another site no cookie comes along, so uploads would be refused; the guard looks at origins.
        options["server.enableXsrfProtection"] = False
    if port is not None:
        _check_free(options["server.address"], port)
        options["server.port"] = port
    secret = server_token() if token else ""
    # Streamlit looks for a config.toml at home, in the working directory and beside the script; none of them is ours.
    config.get_config_files = lambda name: []
    # It puts the folder of the program's name first among those that modules are imported from.
    sys.argv = [str(_HERE.parent)]
    try:
        told = announced(secret, query, browser)
        App(MAIN, middleware=guarded(secret, frame_ancestors), lifespan=told).run(config=options)
    except KeyboardInterrupt:
        print("The dashboard has ended", flush=True)


def server_token() -> str:
    """Return what the server will ask for: what ``DGVIZ_TOKEN`` says, else a new one that nobody can guess."""
    given = os.environ.get(TOKEN, "")
    if not re.fullmatch(r"[\w.~-]*", given, re.ASCII):
        raise ServerError(
            f"{TOKEN} holds a character that is none of a token: give letters, digits, and -._~, or leave it out and "
            "one is made"
        )
    return given or secrets.token_urlsafe(32)


def guarded(token: str, frame_ancestors: str = "") -> list[Middleware]:
    """Return what an `App` lets every request pass through; it is built when Streamlit has read its options."""

    def guard(app: ASGIApp) -> Guard:
        hosts = {*config.get_option("server.allowedHosts"), config.get_option("server.address") or ""}
        config.set_option("server.allowedHosts", sorted(hosts))  # of the websocket, which Streamlit looks at as well
        base = config.get_option("server.baseUrlPath")
        return Guard(app, token, hosts, base, frame_ancestors, inline_scripts(plain_document() + document()))

    def addresses(app: ASGIApp) -> Addresses:
        return Addresses(app, document(), config.get_option("server.baseUrlPath"))

    return [Middleware(guard), Middleware(addresses), Middleware(BoundUploads)]


def announced(
    token: str, query: Mapping[str, str] | None = None, browser: bool = True
) -> Callable[[App], AbstractAsyncContextManager[None]]:
    """Return what an `App` does when it begins: say where the dashboard is, and open it in the browser."""

    @asynccontextmanager
    async def tell(_: App) -> AsyncIterator[None]:
        """By now the port is taken, and whoever comes early waits."""
        address = get_display_address(config.get_option("server.address") or "localhost")
        words = {"token": token, **(query or {})} if token else query
        url = f"{get_url(f'[{address}]' if ':' in address else address)}/" + (f"?{urlencode(words)}" if words else "")
        print(f"The dashboard is at {url} (Ctrl-C ends it)", flush=True)
        if not token:
            print("It asks for no token: whoever reaches this port reads and writes as you do", flush=True)
        threading.Thread(target=load_places, daemon=True).start()
        with tempfile.TemporaryDirectory(prefix="dgviz-") as folder:
            if browser and not config.get_option("server.headless"):
                # Not by the address itself: every user of a machine sees what its programs are started with.
                page = Path(folder, "open.html")
                page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">', encoding="utf-8")
                threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
            yield

    return tell


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


def _checked_address(address: str) -> str:
    """Refuse what is no address of a machine."""
    try:
        return str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        raise ServerError(
            f"--address {address!r} is no IP address: give 127.0.0.1 for this machine alone, 0.0.0.0 for all of its "
            "addresses, or one of them"
        ) from None


def _checked_host(name: str) -> str:
    """Refuse what is no host name."""
    if not _HOST.fullmatch(name):
        raise ServerError(
            f"--allow-host {name!r} is no host name: give one without http:// and port, e.g. example.org"
        )
    return name


def _check_origin(origin: str, token: bool) -> None:
    """Refuse what is no origin, and one that would frame a dashboard which asks for a token."""
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin, re.ASCII):
        raise ServerError(f"--frame-ancestors {origin!r} is no origin: give one as https://example.org:8443")
    if token:
        raise ServerError(
            f"--frame-ancestors {origin} needs --no-token: browsers keep the token's cookie out of frames in other "
            "pages, so the proxy in front of the dashboard must decide who is let in"
        )


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
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
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
