"""`dgviz app` from a wheel, in a folder that has other ideas: it is all there, and its own options hold."""

import asyncio
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus

from dgviz.app.launch import app_options
from dgviz.cli import main

ROOT = Path(__file__).parents[2]
FOREIGN = """
[server]
address = "0.0.0.0"
port = 8999
baseUrlPath = "elsewhere"
allowedHosts = []
[client]
toolbarMode = "developer"
[theme]
base = "no-such-theme.toml"
primaryColor = "#ff0000"
[theme.sidebar]
backgroundColor = "#ff00ff"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy: setuptools leaves folders beside what it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "dgviz", source / "dgviz", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    built = subprocess.run([sys.executable, "-c", build, out], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (metadata,) = (packed.read(name).decode() for name in names if name.endswith("METADATA"))
    assert "dgviz/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata


def start(site, folder, *words):
    """Start the packaged command in a folder, its home as well; return the process and what it said first."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dgviz", "app", "--no-browser", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, process.stdout.readline()


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("base", "tuned", ".streamlit"):
        (folder / name).mkdir()
    (folder / ".streamlit" / "config.toml").write_text(FOREIGN)
    return folder


@pytest.fixture(scope="module")
def address(site, folder):
    """Where the packaged dashboard is served, opened on a pair by relative paths."""
    process, said = start(site, folder, "--port", "0", "base", "tuned")
    with process:
        try:
            yield re.search(r"http://\S+", said)[0]
        finally:
            process.terminate()


def ask(address, path="", **headers):
    """Return status and text of what a server answers to a path, or to its whole address."""
    place = urlsplit(address)
    url = f"http://{place.netloc}{path}" if path else address
    jar = urllib.request.HTTPCookieProcessor(CookieJar())
    try:
        with urllib.request.build_opener(jar).open(urllib.request.Request(url, headers=headers)) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def cookie(address):
    """Return the cookie that a browser gets for an address that holds the token."""
    place = urlsplit(address)
    return f"dgviz-token-{place.port}={parse_qs(place.query)['token'][0]}"


def visit(address, host=None, origin=None, card=True):
    """Return what the server sends to one visitor until the page is drawn."""
    port = urlsplit(address).port
    host = host or f"127.0.0.1:{port}"

    async def talk():
        messages = []
        async with websockets.connect(
            f"ws://{host}/_stcore/stream",
            origin=origin or f"http://{host}",
            additional_headers={"Cookie": cookie(address)} if card else None,
            subprotocols=["streamlit"],
            host="127.0.0.1",
            port=port,
        ) as stream:
            wanted = BackMsg()
            wanted.rerun_script.query_string = "base=none"
            await stream.send(wanted.SerializeToString())
            while not messages or messages[-1].WhichOneof("type") != "script_finished":
                messages.append(ForwardMsg.FromString(await stream.recv()))
        return messages

    return asyncio.run(talk())


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel):
    there = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("dgviz/")}
    files = (path for path in (ROOT / "dgviz").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    assert {"dgviz/app/main.py", "dgviz/app/config.toml", "dgviz/app/views/workbench.py"} <= wanted
    assert there == wanted


@pytest.mark.slow
def test_the_wheel_brings_the_command(wheel):
    archive = zipfile.ZipFile(wheel)
    entries = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "dgviz = dgviz.cli:run_process" in archive.read(entries).decode()


def test_a_relative_pair_is_opened_by_its_whole_path(address, folder):
    query = parse_qs(urlsplit(address).query)
    assert len(query.pop("token")[0]) > 40
    assert query == {"base": [str(folder / "base")], "tuned": [str(folder / "tuned")]}


def test_it_is_served_to_this_machine_only(address):
    port = urlsplit(address).port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health") as reply:
        assert reply.status == 200
    pid = next(
        item.pid for item in psutil.net_connections("tcp") if item.status == "LISTEN" and item.laddr.port == port
    )
    assert {item.laddr.ip for item in psutil.Process(pid).net_connections() if item.status == "LISTEN"} == {
        "127.0.0.1"
    }


def test_a_page_is_drawn_in_the_colours_of_the_package(address):
    messages = visit(address)
    elements = [message.delta.new_element for message in messages if message.WhichOneof("type") == "delta"]
    assert not [element.exception for element in elements if element.WhichOneof("type") == "exception"]
    assert "Open a pair" in [element.heading.body for element in elements if element.WhichOneof("type") == "heading"]
    session = next(message.new_session for message in messages if message.WhichOneof("type") == "new_session")
    theme, options = session.custom_theme, app_options()
    assert not theme.primary_color and not theme.HasField("sidebar")
    for name in ("light", "dark"):
        assert getattr(theme, name).primary_color == options[f"theme.{name}.primaryColor"]
        scale = options[f"theme.{name}.chartSequentialColors"]
        assert list(getattr(theme, name).chart_sequential_colors) == scale
    assert session.config.toolbar_mode == session.config.ToolbarMode.Value("VIEWER")


def test_streamlits_own_variable_names_the_port_where_none_is_given(site, folder, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", str(port))
    process, said = start(site, folder)
    with process:
        process.terminate()
    assert f"http://127.0.0.1:{port}/" in said


@pytest.fixture(scope="module")
def streamlits_own(tmp_path_factory):
    """Where `streamlit run app.py` serves the dashboard, from a folder that has other ideas."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".streamlit").mkdir()
    (folder / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\nallowedHosts = ["*"]\n')
    command = [sys.executable, "-m", "streamlit", "run", ROOT / "app.py", "--server.headless=true", "--server.port=0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            said = ""
            while "http://" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            yield re.search(r"http://\S+", said)[0]
        finally:
            process.terminate()


@pytest.fixture(params=["dgviz app", "streamlit run app.py"])
def served(request):
    """The address of a server, started in each way."""
    return request.getfixturevalue("address" if request.param == "dgviz app" else "streamlits_own")


def test_nobody_is_let_in_without_the_token(served):
    assert urlsplit(served).hostname == "127.0.0.1"
    for path in ("/", "/workbench", "/static/js/none.js", "/_stcore/host-config"):
        status, said = ask(served, path)
        assert status == 403 and "asks for its token" in said
    assert ask(served, "/_stcore/health") == (200, "ok")
    with pytest.raises(InvalidStatus, match="403"):
        visit(served, card=False)


def test_whoever_has_the_token_is_let_in(served):
    status, page = ask(served)
    assert status == 200 and "<title>dgviz</title>" in page
    assert "Open a pair" in [
        message.delta.new_element.heading.body for message in visit(served) if message.WhichOneof("type") == "delta"
    ]


def test_another_origin_and_another_host_name_get_nothing(served):
    port = urlsplit(served).port
    for strange in ({"origin": f"http://127.0.0.1:{port + 1}"}, {"host": f"elsewhere.example:{port}"}):
        with pytest.raises(InvalidStatus, match="403"):
            visit(served, **strange)
    assert ask(served, "/", Cookie=cookie(served), Origin="http://elsewhere.example")[0] == 403
    status, said = ask(served, "/", Cookie=cookie(served), Host=f"elsewhere.example:{port}")
    assert status == 403 and said.startswith("This server does not go by the name 'elsewhere.example")


@pytest.mark.slow
def test_for_other_machines_and_in_the_frame_of_another_page(site, folder):
    framed = "--address 0.0.0.0 --port 0 --no-token --allow-host room.example --frame-ancestors https://hub.example"
    process, said = start(site, folder, *framed.split())
    with process:
        try:
            port = urlsplit(re.search(r"http://\S+", said)[0]).port
            listening = {
                item.laddr for item in psutil.Process(process.pid).net_connections() if item.status == "LISTEN"
            }
            assert listening == {("0.0.0.0", port)}
            told = []
            for origin in ("https://room.example", "https://hub.example"):
                # As a browser asks from within a frame: without any cookie.
                names = {"Host": "room.example", "Origin": origin}
                with closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
                    client.request("PUT", "/_stcore/upload_file/no/file", headers=names)
                    reply = client.getresponse()
                    told.append((reply.status, reply.read().decode()))
            assert told[0][0] == 400 and "session" in told[0][1]
            assert told[1][0] == 403 and "takes nothing from pages of 'https://hub.example'" in told[1][1]
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence(site, folder, address):
    port = str(urlsplit(address).port)
    process, said = start(site, folder, "--port", port)
    with process:
        assert process.wait() == 2
        assert said.startswith(f"dgviz app: port {port} of 127.0.0.1 is in use") and not process.stdout.read()


@pytest.mark.slow
def test_ctrl_c_ends_it_and_the_processes_it_started(site, tmp_path):
    process, said = start(site, tmp_path, "--port", "0")
    with process:
        address = re.search(r"http://\S+", said)[0]
        visit(address)  # starts the warm worker
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() == 0
        assert "Traceback" not in rest
    assert not psutil.wait_procs(started, timeout=300)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["base"], "only BASE is given (base): give TUNED too"),
        (["base", "gone"], "gone does not exist: give a checkpoint's folder or a hub id"),
        (["--port", "99999"], "port 99999 does not exist"),
        (["--address", "example.org"], "--address 'example.org' is no IP address"),
        (["--allow-host", "http://a.example"], "is no host name"),
        (["--frame-ancestors", "https://a.example"], "needs --no-token"),
        (["--no-token", "--frame-ancestors", "https://a.example; script-src *"], "is no origin"),
    ],
)
def test_what_cannot_be_served(folder, words, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["app", "--no-browser", *words]) == 2
    assert message in capsys.readouterr().err
