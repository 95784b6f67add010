"""Uploads by the hub's own client to an endpoint on this machine that keeps what it is sent."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dgviz.cli import main
from tests.checkpoints import write_pair, write_tiny_pair

# The hub's client passes its own HTTP library an old argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")

TOKEN = "hf_of_this_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the endpoint holds and was asked: `files` by name, `requests` as (method, path), JSON that was posted."""

    def __init__(self):
        self.files, self.requests, self.created, self.tokens, self.refuse = {}, [], [], set(), {}
        self.held, self.blobs = [".gitattributes"], {}


@pytest.fixture
def hub(monkeypatch):
    """Serve a hub for one repository, org/new."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            """Answer one request as the hub does, as far as an upload needs it."""
            size = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while length := int(self.rfile.readline(), 16):
                    body += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(size)
            path = self.path.partition("?")[0]
            state.requests.append((self.command, path))
            if path.startswith(("/api/repos/", "/api/models/", "/org/")):
                state.tokens.add(self.headers.get("Authorization"))
            for start, status in state.refuse.items():
                if path.startswith(start):
                    return self.reply(status, {"error": "refused"})
            if path == "/api/repos/create":
                state.created.append(json.loads(body))
                return self.reply(200, {"url": f"{endpoint}/org/new", "name": "org/new", "id": "org/new"})
            if path == "/api/validate-yaml":
                return self.reply(200, {"errors": [], "warnings": []})
            if path.startswith("/api/models/org/new/tree/"):
                return self.reply(200, [{"type": "file", "path": n, "size": 1, "oid": COMMIT} for n in state.held])
            if path == "/api/models/org/new/preupload/main":
                files = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(body)["files"]
                ]
                return self.reply(200, {"files": files})
            if path == "/org/new.git/info/lfs/objects/batch":
                objects = [
                    {**item, "actions": {"upload": {"href": f"{endpoint}/lfs/{item['oid']}"}}}
                    for item in json.loads(body)["objects"]
                ]
                return self.reply(200, {"transfer": "basic", "objects": objects})
            if path.startswith("/lfs/"):
                assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
                state.blobs[path.removeprefix("/lfs/")] = body
                return self.reply(200, {})
            if path == "/api/models/org/new/commit/main":
                for line in body.splitlines():
                    entry = json.loads(line)
                    value = entry["value"]
                    if entry["key"] == "file":
                        state.files[value["path"]] = base64.b64decode(value["content"])
                    elif entry["key"] == "lfsFile":
                        state.files[value["path"]] = state.blobs[value["oid"]]
                url = f"{endpoint}/org/new/commit/{COMMIT}"
                return self.reply(200, {"success": True, "commitOid": COMMIT, "commitUrl": url})
            if path in ("/api/models/org/new", "/api/models/org/new/revision/main"):
                siblings = [{"rfilename": name} for name in state.held]
                return self.reply(200, {"id": "org/new", "sha": COMMIT, "siblings": siblings})
            return self.reply(404, {"error": path})

        do_GET = do_POST = do_PUT = do_HEAD = answer

        def reply(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            for key, item in {"Content-Type": "application/json", "Content-Length": len(data)}.items():
                self.send_header(key, str(item))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    constants = {"ENDPOINT": endpoint, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return a pair whose config names no model, so that no export waits for transformers."""
    return [str(path) for path in write_pair(tmp_path_factory.mktemp("upload"), config={"name": "synthetic"})]


def run(capsys, *arguments):
    """Run a command in this process; return status, standard output and standard error."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def file_bytes(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_finished_output_is_uploaded_whole(capsys, hub, pair, tmp_path):
    status, out, err = run(capsys, "repair", *pair, tmp_path / "out", "--push-to", "org/new", "--private", "--json")
    assert status == 0, err
    assert hub.files == file_bytes(tmp_path / "out")
    assert {"README.md", "dgviz.json", "model.safetensors", "config.json"} <= hub.files.keys()
    assert [(made["name"], made["organization"], made["visibility"]) for made in hub.created] == [
        ("new", "org", "private")
    ]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    paths = [path for _, path in hub.requests]
    order = ["/api/repos/create", "/api/models/org/new/preupload/main", "/api/models/org/new/commit/main"]
    assert sorted(order, key=paths.index) == order and paths[-1] == order[-1] and paths.count(order[-1]) == 1
    report = json.loads(out)
    assert report["address"].endswith("/org/new") and TOKEN not in json.dumps(report)
    assert not any(TOKEN.encode() in data for data in hub.files.values())


def test_what_is_finished_is_uploaded_later(capsys, hub, pair, tmp_path):
    assert run(capsys, "repair", *pair, tmp_path / "out", "--format", "factors")[0] == 0
    assert hub.requests == []
    status, out, _ = run(capsys, "push", tmp_path / "out", "org/new")
    assert status == 0 and out == f"uploaded {tmp_path / 'out'} to {out.split(' to ')[1]}"
    assert hub.files == file_bytes(tmp_path / "out") and hub.created[0]["visibility"] == "public"


@pytest.mark.parametrize(
    ("refuse", "held", "message"),
    [
        ({"/api/repos/create": 400}, [], "the hub did not take org/new ("),
        ({"/api/models/org/new/preupload/main": 500}, [], "the hub did not take org/new ("),
        ({"/api/models/org/new/commit/main": 401}, [], "the hub did not take org/new ("),
        ({"/lfs/": 403}, [], "the hub did not take org/new (Error while uploading 'model.safetensors' to the Hub."),
        ({}, ["model.safetensors"], "org/new on the hub holds 1 files already (model.safetensors ...)"),
    ],
)
def test_a_refused_upload_leaves_the_output_and_says_how_to_go_on(
    capsys, hub, pair, tmp_path, monkeypatch, refuse, held, message
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of the client, between its attempts
    hub.refuse, hub.held = refuse, held
    status, _, err = run(capsys, "repair", *pair, tmp_path / "out", "--push-to", "org/new")
    out = tmp_path / "out"
    last = err.strip().splitlines()[-1]
    assert status == 1 and message in last
    assert last.endswith(f"{out} is complete; upload it later by: python -m dgviz push {out} org/new")
    assert hub.files == {} and (out / "dgviz.json").is_file()


@pytest.mark.parametrize("name", ["new", "a/b/c", "org/new@v1", "../new", "org/-x--y"])
def test_no_name_of_a_repository(capsys, pair, tmp_path, name):
    status, _, err = run(capsys, "repair", *pair, tmp_path / "out", "--push-to", name)
    assert status == 2 and "is no name of a repository on the hub; give ORG/NAME" in err
    assert not (tmp_path / "out").exists()


def test_an_unfinished_output_is_not_uploaded(capsys, hub, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    status, _, err = run(capsys, "push", tmp_path, "org/new")
    assert status == 2 and "holds no finished export" in err and hub.requests == []


def test_an_adapter_of_a_local_base_is_not_uploaded_without_its_name(capsys, hub, tmp_path):
    """Its config names base; a path of this machine would be of no use to anybody and say where the user works."""
    paths = write_tiny_pair(tmp_path, "llama_untied")
    arguments = ("repair", *paths, tmp_path / "out", "--format", "lora", "--rule", "fixed_rank", "--json")
    status, _, err = run(capsys, *arguments, "--push-to", "org/new")
    assert status == 2 and "give --base-name ORG/NAME to upload it" in err and not (tmp_path / "out").exists()
    status, out, _ = run(capsys, *arguments)
    path = f"by a path of this machine ({tmp_path / 'base'})"
    assert status == 0 and sum(path in warning for warning in json.loads(out)["warnings"]) == 1
    status, _, err = run(capsys, "push", tmp_path / "out", "org/new")
    assert status == 2 and path in err and hub.requests == []
    arguments = (
        *arguments[:3],
        tmp_path / "named",
        *arguments[4:],
        "--base-name",
        "org/base",
        "--push-to",
        "org/new",
    )
    status, out, _ = run(capsys, *arguments)
    assert status == 0 and hub.files == file_bytes(tmp_path / "named")
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    assert not any(str(tmp_path).encode() in data for data in hub.files.values())
