"""Addresses of the dashboard, before Streamlit sees them: former ones lead on, and pages say what they will need."""

from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOVED = {
    "checkpoints": ("", {}),
    "layer": ("workbench", {"show": ""}),
    "thresholds": ("workbench", {"show": "rules"}),
    "methods": ("workbench", {"show": "methods"}),
    "model": ("workbench", {"show": "model"}),
    "family": ("workbench", {"show": "family"}),
    "export": ("workbench", {"plan": "open"}),
    "recovery": ("evidence", {}),
}
"""Addresses of former pages: the place that has what they showed, and what is in view there."""


class Addresses:
    """ASGI middleware that leads from addresses of former pages to their places.

    Parameters
    ----------
    app : ASGI application
        What answers everything else.
    base : str
        Path that the server's own begin with.
    scripts : sequence of str
        Scripts that a browser is to fetch with the first page, for figures that come later: relative addresses.
    """

    def __init__(self, app: ASGIApp, base: str = "", scripts: Sequence[str] = ()) -> None:
        self._app = app
        self._path = f"/{base.strip('/')}/".replace("//", "/")
        self._links = ", ".join(f"<{script}>; rel=modulepreload; fetchpriority=low" for script in scripts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a former address; pass everything else on."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and self._links:
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Link"] = self._links
            await send(message)

        former = scope["path"].removeprefix(self._path) if scope["type"] == "http" else ""
        if former not in MOVED:
            await self._app(scope, receive, told)
            return
        place, changes = MOVED[former]
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        kept = [(name, value) for name, value in given if name not in changes]
        words = urlencode([*kept, *((name, value) for name, value in changes.items() if value)])
        # Relative: a proxy may have taken a prefix off the path.
        await RedirectResponse(f"./{place}{words and '?'}{words}", 307)(scope, receive, send)
