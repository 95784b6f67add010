"""A real server and a real browser: the app is started as a user starts it, with a home of its own."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg

from dgviz.demo import demo_paths
from tests.e2e.find_browser import ADVICE, find_browser

ROOT = Path(__file__).parent.parent.parent
ARTEFACTS = ROOT / "build" / "e2e"  # screenshot, page and server log of what failed
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 300
TOKEN = secrets.token_urlsafe()
STARTED = {}  # servers by their ports
PATIENCE = (
    300_000  # milliseconds: on a busy machine the worker imports torch for a minute; what is there does not wait
)
expect.set_options(timeout=PATIENCE)


class AppServer:
    """`streamlit run app.py` on a free port of this machine.

    `home` holds its caches and state, so that a second server with the same home continues where one stopped.
    """

    def __init__(self, home):
        self.home = home
        self.log = home / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    @property
    def environment(self):
        return {
            **os.environ,
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "DGVIZ_CACHE_DIR": str(self.home / "cache"),
            "DGVIZ_STATE_DIR": str(self.home / "state"),
            "DGVIZ_TOKEN": TOKEN,
            "STREAMLIT_SERVER_PORT": str(self.port),
            "STREAMLIT_SERVER_HEADLESS": "true",
        }

    def start(self):
        STARTED[self.port] = self
        command = [sys.executable, "-m", "streamlit", "run", "app.py"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > end:
                self.stop()
                how = "ended before it answered" if ended else f"did not answer in {START_SECONDS} s"
                pytest.fail(f"the server {how}:\n{self.log.read_text()[-4000:]}", pytrace=False)
            time.sleep(0.1)

    def answers(self):
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False

    @property
    def entrance(self):
        """The address that it prints."""
        return f"{self.url}/?token={TOKEN}"

    @property
    def cookie(self):
        """What a browser holds that has been let in."""
        return {"name": f"dgviz-token-{self.port}", "value": TOKEN, "url": self.url}

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def restart(self):
        self.stop()
        self.start()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The running app, shared by all browser tests; one that restarts it leaves it running."""
    server = AppServer(tmp_path_factory.mktemp("app"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_plans(server):
    """Every test begins with the plan of no other."""
    shutil.rmtree(server.home / "state" / "plans", ignore_errors=True)


@pytest.fixture
def fresh_server(tmp_path):
    """A server nobody has visited, with an empty home."""
    server = AppServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    """A Chromium; none is a failure, because a flow that nobody drove has not been tested."""
    path = find_browser()
    if path is None:
        pytest.fail(ADVICE, pytrace=False)
    # One module at a time: Playwright's event loop occupies the main thread while it is open.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser, request):
    """A function that opens a page in a browser of its own: no shared storage, as another person would have.

    Takes what Playwright's `new_context` takes, such as `color_scheme="dark"`; nothing moves unless it is asked for.
    When the test fails every page leaves a screenshot and its HTML in build/e2e.  A request to anywhere but this
    machine, or a page that asks for what its content policy forbids, fails the test.  The browser has been let in
    before, unless it is `stranger`.
    """
    pages, foreign = [], []

    def note(sent):
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:|about:", sent.url):
            foreign.append(sent.url)

    def open_page(stranger=False, **options):
        usual = {"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**usual, **options})
        context.add_cookies([] if stranger else [server.cookie for server in STARTED.values()])
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", note)
        page.console = []
        page.on("console", lambda message: page.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.console.append(f"uncaught: {error}"))
        pages.append(page)
        return page

    yield open_page
    if request.node.stash.get(FAILED, False):
        for number, page in enumerate(pages):
            save(page, f"{request.node.name}-{number}")
    for page in pages:
        page.context.close()
    assert foreign == [], "the app asked for something outside this machine"
    assert [line for page in pages for line in page.console if "Content Security Policy" in line] == []


@pytest.fixture
def page(new_page):
    """One page of 1440 x 1000 pixels."""
    return new_page()


def save(page, name):
    """Leave what the browser showed; a page that has crashed leaves what it can."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    path = ARTEFACTS / re.sub(r"[^\w.-]+", "-", name)
    path.with_name(path.name + ".console.txt").write_text("\n".join(page.console))
    try:
        page.screenshot(path=f"{path}.png", full_page=True)
        path.with_name(path.name + ".html").write_text(page.content())
    except Exception as error:
        path.with_name(path.name + ".console.txt").write_text("\n".join([*page.console, f"no picture: {error}"]))
    print(f"what the browser showed: {path}.png")


FAILED = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when in ("setup", "call") and report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def scanned(server):
    """The server, whose store knows the demo."""
    paths = demo_paths()
    command = [sys.executable, "-m", "dgviz", "scan", paths["base"], paths["noisy"], "--workers", "1"]
    subprocess.run(command, cwd=ROOT, env=server.environment, capture_output=True, check=True)
    return server


def noted_messages(page):
    """Return a list that grows with what the user's hand sends to the server, not with looks at running jobs."""
    sent = []

    def note(frame):
        message = BackMsg.FromString(frame)
        if message.WhichOneof("type") == "rerun_script" and not message.rerun_script.is_auto_rerun:
            sent.append(message)

    page.on("websocket", lambda socket: socket.on("framesent", note))
    return sent


def follow_link(page, url):
    """Go to a link, and say yes where the server asks first: it has not opened the pair before."""
    page.goto(url)
    ask, bench = (
        page.get_by_role(role, name=name)
        for role, name in (("button", "Open this pair"), ("slider", "Threshold tau"))
    )
    expect(ask.or_(bench)).to_be_visible()
    if ask.is_visible():
        ask.click()


def wait_until(page, expression):
    """Wait until an expression is true in a page, whose policy lets Playwright's own waiting look only once."""
    deadline = time.monotonic() + START_SECONDS
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(50)
