"""Addresses of the dashboard, before Streamlit sees them: former ones lead on, those of places have its document."""

from urllib.parse import parse_qsl, urlencode

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dgviz.app.navigation import PLACES

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
    """ASGI middleware that leads from addresses of former pages to their places, and hands out the places' document.

    Parameters
    ----------
    app : ASGI application
        What answers everything else.
    document : str
        The HTML document of every place.
    base : str
        Path that the server's own begin with.
    """

    def __init__(self, app: ASGIApp, document: str, base: str = "") -> None:
        self._app = app
        self._path = f"/{base.strip('/')}/".replace("//", "/")
        self._document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a former address and a place's; pass everything else on."""
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        name = scope["path"].removeprefix(self._path) if reads else None
        if name in MOVED:
            await self._lead_on(name, scope)(scope, receive, send)
        elif name in ("", *PLACES):
            page = HTMLResponse(self._document, headers={"Cache-Control": "no-cache"})
            await page(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    @staticmethod
    def _lead_on(former: str, scope: Scope) -> Response:
        """Return what leads a former address on, with its query."""
        place, changes = MOVED[former]
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        kept = [(name, value) for name, value in given if name not in changes]
        words = urlencode([*kept, *((name, value) for name, value in changes.items() if value)])
        # Relative: a proxy may have taken a prefix off the path.
        return RedirectResponse(f"./{place}{words and '?'}{words}", 307)
