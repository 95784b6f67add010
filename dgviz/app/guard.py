"""The door of the server: it opens to whoever has the token, from the server's own pages, under a name of its own.

Whoever reaches the server reads and writes as the account it runs under, and a port of this machine is reached by
every user of it and by every page that a browser here has open. So a request needs three things. The token, once in
an address and from then on in a cookie. A host name that the server goes by: a foreign one may have been bent to this
machine's address (DNS rebinding). And where it names an origin, the server's own with its port, for cookies do not
tell ports apart. Pages are told to load nothing from elsewhere and not to be framed.
"""

import base64
import hashlib
import html
import re
import secrets
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote_plus, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SHOWN = 200  # characters of what a stranger says of itself
_FIRST_CALL = "/_stcore/host-config"  # what a page of Streamlit asks for before it connects
_RENEWED = "The dashboard was started again,\nwith a new token: reload this page\nand paste it."


class Guard:
    """ASGI middleware that lets nobody in without the server's token.

    The health endpoint stays open: it says nothing but that the server is up.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    token : str
        What an address or a cookie must hold; empty where a proxy in front of the server lets people in.
    hosts : iterable of str
        Names the server goes by, without ports; ``*.example.org`` for all below one, ``*`` for any.
    base : str
        Path that the server's own begin with.
    frame_ancestors : str
        The origin whose pages may frame the server's; empty for none.
    scripts : iterable of str
        Scripts inside the server's pages, which a browser is to run.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        hosts: Iterable[str],
        base: str = "",
        frame_ancestors: str = "",
        scripts: Iterable[str] = (),
    ) -> None:
        self._app, self._token = app, token
        self._hosts = [host.strip("[]").lower().rstrip(".") for host in hosts]
        self._path = f"/{base.strip('/')}".rstrip("/")
        self._headers = {
            "Content-Security-Policy": _policy(frame_ancestors, scripts),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        healthy = scope["type"] == "http" and scope["path"] == f"{self._path}/_stcore/health"
        answer = None if healthy else self._answer(HTTPConnection(scope))
        await (self._app if answer is None else answer)(scope, receive, told)

    def _answer(self, asked: HTTPConnection) -> Response | None:
        """Return what is answered in the place of the server; None where it may answer."""
        host, origin = asked.headers.get("host", ""), asked.headers.get("origin")
        if not self._goes_by(host):
            return _refusal(
                f"This server does not go by the name {host[:_SHOWN]!r}: if it is meant to, start it with "
                "--allow-host and that name."
            )
        if origin is not None and not _is_same(origin, host):
            return _refusal(
                f"This server takes nothing from pages of {origin[:_SHOWN]!r}, only from its own, of {host!r}: a "
                "proxy in front of it must pass on the Host header."
            )
        if not self._token:
            return None
        given = asked.query_params.get("token") if _is_read(asked) else None
        if given is not None:
            # What is pasted may be the whole address.
            fits = self._fits(given.strip().rpartition("token=")[2].partition("&")[0])
            return self._welcome(asked) if fits else _token_page(asked, "This is not the token of this server.")
        if self._fits(asked.cookies.get(_cookie(asked), "")):
            return None
        if asked.scope["path"].endswith(_FIRST_CALL) and asked.headers.get("sec-fetch-site") == "same-origin":
            # By a page that was open when the server was started again: it shows any answer but 403.
            return JSONResponse(_RENEWED, 401)
        return _token_page(asked)

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(errors="replace"), self._token.encode())

    def _goes_by(self, host: str) -> bool:
        """Return whether a Host header is one of the server's names."""
        name = (_parts(f"//{host}") or ("", None))[0].rstrip(".")
        return any(
            name == known or known == "*" or (known.startswith("*.") and name.endswith(known[1:]))
            for known in self._hosts
            if name
        )

    def _welcome(self, asked: HTTPConnection) -> Response:
        """Return a redirect to the same address without the token, which becomes a cookie."""
        rest = "&".join(part for part in _query(asked).split("&") if not _names_token(part))
        # Relative: a proxy may have taken a prefix off the path, and no path can lead to another server.
        page = "./" + quote(asked.scope["path"].rpartition("/")[2]) + (f"?{rest}" if rest else "")
        answer = RedirectResponse(page, 303, {"Cache-Control": "no-store"})
        answer.set_cookie(
            _cookie(asked),
            self._token,
            path=self._path or "/",
            secure=asked.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer


def _policy(frame_ancestors: str, scripts: Iterable[str]) -> str:
    """Return the content policy of every page: what Streamlit, Plotly and components need, all of it from here."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = {
        "default-src": "'self'",
        "script-src": " ".join(["'self' blob:", *(f"'sha256-{digest}'" for digest in digests)]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": frame_ancestors or "'none'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in allowed.items())


def inline_scripts(page: str) -> list[str]:
    """Return the scripts that stand inside a page."""
    return re.findall(r"<script>(.*?)</script>", page, re.DOTALL)


def _parts(address: str) -> tuple[str, int | None] | None:
    """Return host name and port of an address; None where it has no such."""
    try:
        parts = urlsplit(address)
        more = parts.path or parts.query or parts.fragment or "@" in parts.netloc
        return None if more else (parts.hostname or "", parts.port)
    except ValueError:
        return None


def _is_same(origin: str, host: str) -> bool:
    """Return whether an origin is that of a Host header, the port included."""
    usual = {"http": 80, "https": 443}.get(origin.partition("://")[0])
    sides = [side and (side[0], side[1] or usual) for side in (_parts(origin), _parts(f"//{host}"))]
    return usual is not None and sides[0] is not None and sides[0] == sides[1]


def _cookie(asked: HTTPConnection) -> str:
    """Return the cookie's name: browsers send cookies to every port of a host, so it has the port in it."""
    return f"dgviz-token-{asked.url.port}" if asked.url.port else "dgviz-token"


def _query(asked: HTTPConnection) -> str:
    return asked.scope["query_string"].decode("latin-1")


def _names_token(part: str) -> bool:
    return unquote_plus(part.partition("=")[0]) == "token"


def _is_read(asked: HTTPConnection) -> bool:
    """Return whether a request is one that a page's address makes."""
    return asked.scope["type"] == "http" and asked.scope["method"] in ("GET", "HEAD")


def _refusal(sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", 403, {"Cache-Control": "no-store"})


def _token_page(asked: HTTPConnection, complaint: str = "") -> Response:
    """Return the page that asks for the token.

    A browser keeps the cookie back where another site has led to the server. Then the page is asked for once more, by
    itself, which brings the cookie if there is one.
    """
    led = asked.headers.get("sec-fetch-site") in ("cross-site", "same-site") and not complaint and _is_read(asked)
    query = parse_qsl(_query(asked), keep_blank_values=True)
    kept = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in query
        if name != "token"
    )
    page = _PAGE.format(
        again='<meta http-equiv="refresh" content="0">' if led else "", complaint=html.escape(complaint), kept=kept
    )
    return HTMLResponse(page, 403, {"Cache-Control": "no-store"})


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{again}
<link rel="icon" href="data:,">
<title>dgviz asks for its token</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 sans-serif; max-width: 34rem; margin: 14vh auto 0; padding: 0 1.25rem; }}
h1 {{ font-size: 1.375rem; }}
form {{ display: flex; gap: .5rem; align-items: end; }}
label {{ flex: 1; }}
input, button {{ font: inherit; padding: .4rem .6rem; box-sizing: border-box; }}
input {{ width: 100%; }}
[role=alert] {{ color: light-dark(#b3261e, #ff8a80); }}
</style>
</head>
<body>
<h1>This dashboard asks for its token</h1>
<p>Where dgviz was started it has printed an address that ends with <code>?token=</code> and the token. Open that
address, or paste it here. A server that was started again has a new token.</p>
<p role="alert">{complaint}</p>
<form>{kept}<label>Token <input type="password" name="token" required autofocus autocomplete="off"></label>
<button>Open</button></form>
</body>
</html>
"""
