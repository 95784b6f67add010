"""A bound on what the server holds of uploaded files: Streamlit caps each of them, not all together."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import runtime

from dgviz.words import size

LIMIT = 256 << 20
"""Bytes of all uploads that the server holds for all open pages."""


class BoundUploads:
    """ASGI middleware that refuses one more file while the server holds as many bytes as it may.

    Parameters
    ----------
    app : ASGI application
        Streamlit's server.
    limit : int
        Bytes of all uploads together; the last one may exceed it by its own size.
    """

    def __init__(self, app: ASGIApp, limit: int = LIMIT) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        answer = self._app
        if scope["type"] == "http" and scope["method"] == "PUT" and held() >= self._limit:
            answer = PlainTextResponse(
                f"The server holds {size(held())} of uploaded files, of {size(self._limit)} that it may: take "
                "files away in the pages that uploaded them, or close these pages.\n",
                413,
            )
        await answer(scope, receive, send)


def held() -> int:
    """Return the bytes of all uploads that the server holds."""
    stats = runtime.get_instance().uploaded_file_mgr.get_stats()
    return sum(stat.byte_length for family in stats.values() for stat in family)
