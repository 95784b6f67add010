"""Hub ids: found in a cache, planned and fetched from an endpoint that these tests serve themselves."""

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dgviz.app.fetches import fetch_task
from dgviz.app.jobs import running_jobs
from dgviz.checkpoint import open_checkpoint, open_pair
from dgviz.checkpoint.hub import HubPlan, find_cached, is_cached_whole, iter_fetch, plan_download, split_hub_id
from dgviz.cli import main
from dgviz.errors import CheckpointError
from tests.app.pages import open_at, texts
from tests.checkpoints import random_tensors, write_checkpoint, write_pair

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Give huggingface_hub a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached_snapshot(cache, source, repo="org/name", revision="main"):
    """Lay a checkpoint out as the hub's cache does: blobs, links to them, and a ref."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for directory in (snapshot, root / "blobs", root / "refs"):
        directory.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    for file in source.iterdir():
        blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def message(call, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_a_hub_id(tmp_path, monkeypatch):
    assert split_hub_id("org/name") == ("org/name", None)
    assert split_hub_id("org/na.me-7B@refs/pr/3") == ("org/na.me-7B", "refs/pr/3")
    for text in ("name", "/org/name", "./org/name", "org/name/more", "org/../name", "a/b@", "a/b@../c", "a--b/c"):
        assert split_hub_id(text) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert split_hub_id("org/name") is None  # a path that is there


def test_a_cached_model_opens_by_its_id(tmp_path, cache):
    base, tuned = write_pair(tmp_path)
    snapshot = cached_snapshot(cache, base)
    cached_snapshot(cache, tuned, "org/tuned", "v1")
    assert open_checkpoint("org/name").path == open_checkpoint("org/name@main").path == snapshot
    assert open_checkpoint(f"org/name@{COMMIT}").path == snapshot
    assert len(open_pair("org/name", "org/tuned@v1").repairable) == 6
    assert "no model of this id in the Hugging Face cache" in message(open_checkpoint, "org/tuned")
    assert "by `python -m dgviz fetch org/name@v9` or" in message(open_checkpoint, "org/name@v9")


def test_a_partial_cache_is_named_by_what_it_lacks(tmp_path, cache):
    snapshot = cached_snapshot(cache, write_checkpoint(tmp_path / "m", random_tensors(), shards=3))
    (snapshot / "model-00002-of-00003.safetensors").unlink()
    assert "names shards that are not there: 'model-00002-of-00003.safetensors'" in message(
        open_checkpoint, "org/name"
    )
    assert find_cached("org/none") is None


def test_offline(cache):
    assert "is not in the cache and the Hugging Face Hub cannot be reached" in message(plan_download, "org/name")


# --- an endpoint ----------------------------------------------------------------------------------------------------

REFUSED = {
    "org/gated": (403, "GatedRepo", "org/gated is gated: accept its terms"),
    "org/none": (404, "RepoNotFound", "there is no model 'org/none' on the Hugging Face Hub, or it is private"),
    "org/broken": (500, "", "org/broken cannot be fetched from the Hugging Face Hub ("),
}

PIPELINE = {"model_index.json": b"{}", "unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": b"x"}


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    """Serve one model of two shards, and the refusals of a hub; return the list of files that were fetched."""
    files = {
        file.name: file.read_bytes() for file in write_checkpoint(tmp_path / "m", random_tensors(), {}, 2).iterdir()
    }
    files |= {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"x", "sub/model.safetensors": b"x"}
    files |= {"original.safetensors": b"x", "additional_chat_templates/tool.jinja": b"hi"}
    fetched = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
            repo, rest = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])
            if repo in REFUSED:
                return self.reply(REFUSED[repo][0], b"{}", {"X-Error-Code": REFUSED[repo][1]})
            if rest.startswith("revision/") and rest != "revision/main":
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if rest == "revision/main":
                return self.reply(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": []}).encode())
            if rest.startswith("tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in (PIPELINE if repo == "org/pipeline" else files).items()
                ]
                return self.reply(200, json.dumps(tree).encode())
            if not rest:  # not about a model: huggingface_hub asks for more
                return self.reply(404, b"{}")
            name = rest.removeprefix(f"resolve/{COMMIT}/")
            if self.command == "GET":
                fetched.append(name)
            data = (PIPELINE if repo == "org/pipeline" else files)[name]
            return self.reply(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

        def reply(self, status, body, headers=()):
            self.send_response(status)
            for key, value in {"Content-Length": len(body), "X-Repo-Commit": COMMIT, **dict(headers)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for name in ("ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"):
        value = {"ENDPOINT": endpoint}.get(name, name == "HF_HUB_DISABLE_XET")
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    # For jobs, which are processes of their own.
    for name, value in {"ENDPOINT": endpoint, "HUB_CACHE": cache, "HUB_DISABLE_XET": 1, "HUB_OFFLINE": 0}.items():
        monkeypatch.setenv(f"HF_{name}", str(value))
    yield fetched
    server.shutdown()
    server.server_close()


def test_a_plan_lists_what_is_read_and_fetching_gets_just_that(hub):
    plan = plan_download("org/name")
    names = sorted(name for name, _ in plan.files)
    assert names == [
        "additional_chat_templates/tool.jinja",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert plan.commit == COMMIT and plan.cached == () and hub == []
    assert list(iter_fetch(plan))[-1] == plan.nbytes
    directory = find_cached(plan.repo, plan.commit)
    sizes = [file.stat().st_size for file in directory.rglob("*") if file.is_file()]
    assert sorted(hub) == names and plan.nbytes == sum(sizes)
    opened = open_checkpoint("org/name")
    assert opened.path == directory and opened.tensors.keys() == random_tensors().keys()
    again = plan_download("org/name")
    assert again.files == () and sorted(again.cached) == sorted(plan.files)


@pytest.mark.parametrize("repo", REFUSED)
def test_the_hub_refuses(hub, repo):
    assert REFUSED[repo][2] in message(plan_download, repo)


def test_a_pipeline_is_several_models(hub):
    said = message(plan_download, "org/pipeline")
    assert "org/pipeline is a diffusers pipeline of several models: download it" in said and hub == []


def test_a_revision_that_is_not_there(hub):
    assert "org/name has no revision 'v9': give a branch, a tag or a commit" in message(
        plan_download, "org/name", "v9"
    )


def test_offline_with_something_in_the_cache(tmp_path, cache):
    cached_snapshot(cache, write_pair(tmp_path)[0])
    assert "cannot be reached to say whether org/name in the cache is whole" in message(plan_download, "org/name")


def test_a_download_that_the_disk_cannot_hold_is_not_begun(hub):
    plan = HubPlan("org/name", COMMIT, (("model.safetensors", 2**60),), ())
    assert "needs 1,152,921,504,606,846,976 bytes, and the disk" in message(list, iter_fetch(plan))
    assert hub == []


def test_a_download_that_is_left_stops(hub):
    download = iter_fetch(plan_download("org/name"), heartbeat=0)
    assert next(download) == 0
    download.close()
    assert not is_cached_whole("org/name")
    assert list(iter_fetch(plan_download("org/name")))[-1] > 0 and is_cached_whole("org/name")


# --- the command line -----------------------------------------------------------------------------------------------


def test_fetch_shows_its_plan_then_fetches(hub, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["fetch", "org/name@main", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert f"org/name at commit {COMMIT}" in shown and "5 files to fetch, 97.7 KiB" in shown and hub == []
    assert main(["fetch", "org/name@main", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["directory"] == str(find_cached("org/name")) and "fetch: 100%" in said.err
    assert found["bytes"] == sum(file["bytes"] for file in found["files"]) > 0
    assert {file["state"] for file in found["files"]} == {"fetch"} and len(hub) == 5
    assert main(["fetch", "org/name", "--plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == 0 and {file["state"] for file in found["files"]} == {"cached"}


@pytest.mark.parametrize(
    ("model", "said"),
    [(repo, said) for repo, (_, _, said) in REFUSED.items()]
    + [
        ("name", "'name' is no hub id: give org/name, or org/name@revision"),
        (".", "is a path that is there already"),
    ],
)
def test_fetch_refuses_in_a_sentence(hub, capsys, model, said):
    assert main(["fetch", model]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dgviz fetch: ") and said in error and error.count("\n") == 1


# --- Open, the dashboard's first place ------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("DGVIZ_STATE_DIR", str(tmp_path / "state"))
    yield
    for _, job in running_jobs():
        job.cancel(force=True)


@pytest.mark.slow
def test_the_page_fetches_what_is_not_there(tmp_path, hub, state):
    base, _ = write_pair(tmp_path / "pair")
    app = open_at("open", base=base, tuned="org/name")
    assert "org/name is not on this machine." in texts(app) and not app.metric
    assert any("python -m dgviz fetch org/name" in code.value for code in app.code)
    app.button(key="start-fetch-org/name").click().run()
    assert not app.exception
    deadline = time.monotonic() + 300
    job = fetch_task("org/name").job
    while job.state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert job.state == "done", job.log_tail()
    assert len(hub) == 5
    app = open_at("open", base=base, tuned="org/name")
    assert "not on this machine" not in texts(app) and len(app.metric) == 5


@pytest.mark.slow
def test_the_page_says_what_the_hub_refuses(tmp_path, hub, state):
    base, _ = write_pair(tmp_path / "pair")
    app = open_at("open", base=base, tuned="org/gated")
    assert REFUSED["org/gated"][2] in texts(app)
    assert not any(button.label.startswith("Fetch") for button in app.button)


def test_the_page_fetches_only_into_an_allowed_cache(tmp_path, hub, state, monkeypatch):
    base, _ = write_pair(tmp_path / "pair")
    monkeypatch.setenv("DGVIZ_ROOTS", str(tmp_path / "pair"))
    app = open_at("open", base=base, tuned="org/name")
    assert "hub is not opened: it lies outside the folders" in texts(app)
    assert not any(button.label.startswith("Fetch") for button in app.button)
