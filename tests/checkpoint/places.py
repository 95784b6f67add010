"""Places that checkpoints are read from afar: a web server that gives ranges, and what goes wrong with it."""

import hashlib
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class WebServer:
    """A folder served by ranges; what it sends is counted, and what it does wrong is set.

    Attributes
    ----------
    sent : Counter
        Bytes of contents by file name.
    requests : list of (str, str or None, str or None)
        Path, range and authorization of each request.
    faults : list of str
        What goes wrong with the next answers, one each: ``"busy"``, ``"short"``, ``"drop"``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent, self.requests, self.faults = folder, Counter(), [], []
        self.ranges = self.etags = True
        self.status = self.redirect = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                owner.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.address = f"http://{self.host}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def answer(self, to) -> None:
        """Answer one request."""
        asked = to.headers.get("Range")
        self.requests.append((to.path, asked, to.headers.get("Authorization")))
        file = self.folder / unquote(to.path).lstrip("/")
        fault = self.faults.pop(0) if self.faults else ""
        if self.redirect is not None:
            return reply(to, 302, {"Location": f"{self.redirect}{to.path}"})
        if self.status is not None or fault == "busy":
            return reply(to, self.status or 503)
        if not file.is_file():
            return reply(to, 404)
        size = file.stat().st_size
        begin, end = map(int, asked.removeprefix("bytes=").split("-"))
        headers = {"ETag": f'"{etag(file)}"'} if self.etags else {}
        if begin >= size:
            return reply(to, 416, headers | {"Content-Range": f"bytes */{size}"})
        end = min(end + 1, size)
        with file.open("rb") as stream:
            stream.seek(begin)
            content = stream.read(end - begin)
        if self.ranges:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        content = content[: len(content) // 2] if fault == "drop" else content
        self.sent[file.name] += len(content)
        return reply(to, 206 if self.ranges else 200, headers, content, end - begin)


def etag(file: Path) -> str:
    """Return what stands for the contents of a file: its state on the disk, as many servers do it."""
    stat = file.stat()
    return hashlib.sha1(f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_size}".encode()).hexdigest()


def reply(to, status, headers=(), content=b"", length=None):
    """Send an answer; with a length that is not its content's, the connection breaks in it."""
    to.send_response(status)
    for name, value in {"Content-Length": len(content) if length is None else length, **dict(headers)}.items():
        to.send_header(name, str(value))
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(content)
    if length not in (None, len(content)):
        to.close_connection = True
