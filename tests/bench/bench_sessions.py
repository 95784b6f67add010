"""Twenty sessions at once, beside a running export: time to ready, the server's memory, its health endpoint.

A session is what a browser's tab is to the server: a WebSocket that asks for a page and waits until it is drawn.
``python -m tests.bench.bench_sessions [--sessions 20]`` prints a table in Markdown.
"""

import argparse
import asyncio
import datetime
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psutil
import torch
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect

from tests.checkpoints import planted_update, write_checkpoint

ROOT = Path(__file__).parents[2]
PLACES = "", "open", "workbench", "evidence"
PAIR = {"base": "demo:base", "tuned": "demo:noisy"}


class Server:
    """A dashboard of its own, and a visitor's way in."""

    def __init__(self, home: Path) -> None:
        environment = {**os.environ, "DGVIZ_CACHE_DIR": str(home / "cache"), "DGVIZ_STATE_DIR": str(home / "state")}
        command = [sys.executable, "-m", "dgviz", "app", "--no-browser"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, **streams)
        said = self.process.stdout.readline()
        url = urlsplit(re.search(r"http://\S+", said)[0])
        self.address = url.netloc
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.request("GET", f"/?{url.query}")
        cookie = connection.getresponse().getheader("Set-Cookie") or ""
        self.headers = {"Origin": f"http://{self.address}", "Cookie": cookie.partition(";")[0]}

    def memory(self) -> dict[str, float]:
        """MiB resident of the server, and of the worker it has started."""
        own = psutil.Process(self.process.pid)
        children = sum(child.memory_info().rss for child in own.children(recursive=True))
        return {"server": own.memory_info().rss / 2**20, "worker": children / 2**20}

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


class Watch:
    """Asks for the server's health again and again, in a process of its own, which nothing else keeps busy."""

    def __init__(self, server: Server) -> None:
        command = [sys.executable, "-c", ASKING, server.address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self) -> list[float]:
        """Stop; return the seconds that every answer took."""
        said, _ = self.process.communicate("stop\n", timeout=120)
        return list(map(float, said.split()))


ASKING = """
import http.client, select, sys, time
while not select.select([sys.stdin], [], [], 0.05)[0]:
    started = time.perf_counter()
    connection = http.client.HTTPConnection(sys.argv[1], timeout=100)
    connection.request("GET", "/_stcore/health")
    assert connection.getresponse().status == 200
    print(time.perf_counter() - started)
"""


async def open_session(server: Server, place: str, close: asyncio.Event, drawn: list[float]) -> None:
    """Open a page as a tab does, note the seconds until it is drawn, and stay until all are to close."""
    started = time.perf_counter()
    url = f"ws://{server.address}/_stcore/stream"
    async with connect(url, additional_headers=server.headers, subprotocols=["streamlit"], max_size=None) as tab:
        asked = BackMsg()
        asked.rerun_script.query_string = urlencode(PAIR)
        asked.rerun_script.page_name = place
        await tab.send(asked.SerializeToString())
        while not is_end(await tab.recv()):
            pass
        drawn.append(time.perf_counter() - started)
        reader = asyncio.create_task(read_on(tab))  # fragments that run again by themselves
        await close.wait()
        reader.cancel()


def is_end(data: bytes) -> bool:
    """Return whether a message says that the page's script has come to its end; an error on the page ends all."""
    message = ForwardMsg.FromString(data)
    if message.delta.new_element.WhichOneof("type") == "exception":
        raise RuntimeError(f"a page shows an error: {message.delta.new_element.exception.message}")
    ended = message.WhichOneof("type") == "script_finished"
    return ended and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY


async def read_on(tab: object) -> None:
    """Take what else the server sends."""
    while True:
        await tab.recv()


async def open_sessions(server: Server, count: int, stay: float) -> tuple[list[float], dict[str, float]]:
    """Open sessions all at once and let them stay for a while; return their seconds, and the memory meanwhile."""
    close, drawn = asyncio.Event(), []
    tabs = [
        asyncio.create_task(open_session(server, PLACES[number % len(PLACES)], close, drawn))
        for number in range(count)
    ]
    async with asyncio.timeout(600):
        while len(drawn) < count:
            await asyncio.sleep(0.1)
            for tab in tabs:
                if tab.done():
                    tab.result()  # it may only end by an error
    await asyncio.sleep(stay)
    memory = server.memory()
    close.set()
    await asyncio.gather(*tabs)
    return drawn, memory


def write_large_pair(directory: Path) -> list[str]:
    """Write a pair whose export takes longer than everything else here; return both paths."""
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{i}.weight": 0.02 * torch.randn(2048, 1024, generator=generator) for i in range(32)}
    for side, tensors in (("base", base), ("tuned", planted_update(base))):
        halved = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        write_checkpoint(directory / side, halved, {"name": "synthetic"}, 4)
    return [str(directory / side) for side in ("base", "tuned")]


def measure(server: Server, sessions: int, title: str, stay: float) -> list[str]:
    """Open sessions and watch the server; return a row of the table."""
    watch = Watch(server)
    seconds, memory = asyncio.run(open_sessions(server, sessions, stay))
    healthy = watch.stop()
    load = os.getloadavg()[0]
    ready = [f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"]
    held = [f"{memory[part]:.0f}" for part in ("server", "worker")]
    answers = [f"{1000 * statistics.median(healthy):.0f}", f"{1000 * max(healthy):.0f}"]
    return [title, *ready, *held, *answers, f"{load:.1f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--stay", type=float, default=5.0, help="seconds that tabs stay open when all are drawn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        pair = write_large_pair(home)
        server = Server(home)
        try:
            rows = [measure(server, 1, "one session, the first of all", 0)]
            rows.append(measure(server, 1, "one session", 0))
            rows.append(measure(server, options.sessions, f"{options.sessions} sessions", options.stay))
            command = [sys.executable, "-m", "dgviz", "repair", *pair, str(home / "out"), "--device", "cpu"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            export = subprocess.Popen(["nice", "-n", "5", *command], cwd=ROOT, **quiet)
            try:
                title = f"{options.sessions} sessions beside an export"
                rows.append(measure(server, options.sessions, title, options.stay))
                ended = export.poll() is not None
            finally:
                export.kill()
                export.wait()
            rows.append(measure(server, 1, "one session, after all others were closed", options.stay))
        finally:
            server.stop()
    print(f"{datetime.date.today()}, {os.cpu_count()} cores{', the export ended early' if ended else ''}:\n")
    titles = ["", "ready, s: median", "worst", "server, MiB", "worker, MiB", "health, ms: median", "worst", "load"]
    for row in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
