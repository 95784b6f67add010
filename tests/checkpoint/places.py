"""Places that checkpoints are read from afar: a web server, a hub and an object store, and what goes wrong there."""

import contextlib
import hashlib
import json
import os
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # many ask at once, and whoever finds no place comes back after a second


class WebServer:
    """A folder served by ranges; what it sends is counted, and what it does wrong is set.

    Attributes
    ----------
    sent : Counter
        Bytes of contents by file name.
    requests : list of (str, str or None, str or None)
        Path, range and authorization of each request.
    faults : list of str
        What goes wrong with the next answers, one each: ``"busy"`` or ``"drop"``.
    allowance : int, optional
        After so many bytes it answers 403, as after a token
        has run out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent, self.requests, self.faults = folder, Counter(), [], []
        self.ranges = self.etags = True
        self.status = self.redirect = self.allowance = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                owner.answer(self)

            def log_message(self, *args):
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
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
        if self.allowance is not None and self.allowance < 0:
            return reply(to, 403)
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
        self.allowance = None if self.allowance is None else self.allowance - len(content)
        return reply(to, 206 if self.ranges else 200, headers, content, end - begin)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(WebServer):
    """A hub of the models in a folder, by organisation and name; it sends whoever wants a file to another host.

    Attributes
    ----------
    store : WebServer
        The other host.
    lies : bool
        Whether the digests of small files are wrong.
    """

    REFUSED: ClassVar = {"org/none": (404, "RepoNotFound"), "org/gated": (403, "GatedRepo")}

    def __init__(self, folder: Path) -> None:
        self.store, self.lies = WebServer(folder), False
        inner = folder / "org" / "pipeline" / "unet"
        inner.mkdir(parents=True)
        (inner / "diffusion_pytorch_model.safetensors").write_bytes(
            (next((folder / "org" / "base").glob("*00001-of*"))).read_bytes()
        )
        (inner.parent / "model_index.json").write_text("{}")
        super().__init__(folder)

    def close(self):
        super().close()
        self.store.close()

    def answer(self, to) -> None:
        self.requests.append((to.path, to.headers.get("Range"), to.headers.get("Authorization")))
        parts = unquote(to.path.partition("?")[0]).removeprefix("/api/models").strip("/").split("/")
        repo, (kind, revision, *more) = "/".join(parts[:2]), parts[2:] or ("revision", "main")
        inner = "/".join(more)
        if repo in self.REFUSED:
            status, code = self.REFUSED[repo]
            return reply(to, status, {"X-Error-Code": code}, b"{}")
        if revision not in ("main", COMMIT):
            return reply(to, 404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
        if kind == "revision":
            return reply(to, 200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": []}).encode())
        if kind == "tree":
            root = self.folder / repo
            listed = [self._entry(root, file) for file in sorted((root / inner).iterdir())]
            return reply(to, 200, {}, json.dumps(listed).encode())
        return reply(to, 302, {"Location": f"{self.store.address}/{repo}/{inner}"})

    def _entry(self, root: Path, file: Path) -> dict:
        path = file.relative_to(root).as_posix()
        if file.is_dir():
            return {"type": "directory", "path": path, "oid": COMMIT}
        content = b"other" if self.lies else file.read_bytes()
        entry = {"type": "file", "path": path, "size": file.stat().st_size}
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if file.suffix == ".safetensors":
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": entry["size"], "pointerSize": 100}
        return entry


@contextlib.contextmanager
def s3_server():
    """Serve S3 on this machine; yields a client of it, and puts its address into the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    own = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    own |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    before = dict(os.environ)
    os.environ.update(own)
    try:
        yield boto3.client("s3")
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


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
