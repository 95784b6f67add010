"""Does an export make the pages stutter? From a click to the answer in a real browser, without and with an export.

The pages show the demo; what runs beside them is the export of a synthetic pair, started as the plan's drawer does it
and continued from round to round. Blocks without and with it alternate, in the same browser on the same server.
Browser, server, worker and export share the machine, as they do on a laptop.

- another weight: *N* in the workbench, until its spectrum is drawn; of a weight seen before.
- tau, in the browser: *Keep one direction more*, until Figure 4 says the new rank.
- tau, on the server: the same click, until the maps stand at it; the repaired delta has been made anew.
- a weight never seen: *N* on a pair of 2048 x 1024 matrices, its decomposition included.
- another place: Evidence, from the click in the menu to its chart; and the workbench, back again.

Run: ``python -m tests.bench.bench_latency [--rounds N] [--clicks N] [--out FILE]``.
"""

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from dgviz.jobs import start_job
from tests.bench.bench_export import planted_pair

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from tests.e2e.conftest import CHROMIUM_FLAGS, AppServer, follow_link  # noqa: E402
from tests.e2e.find_browser import find_browser  # noqa: E402

WAIT = 120_000  # milliseconds; only ends a run that would hang
SHAPE, COUNT, SHARDS = (2048, 1024), 96, 12
SEEN = 8  # weights of the demo that are gone through
REST = 0.4  # seconds between an answer and the next click

KINDS = (
    "another weight, until its spectrum is drawn",
    "tau, until the browser follows",
    "tau, until the maps have followed",
    "a weight never seen, 2048 x 1024, decomposed",
    "Evidence, until its chart is drawn",
    "the workbench, until its spectrum is drawn",
)
# The component has a root of its own.
BENCH = """const roots = [...document.querySelectorAll("*")].map((node) => node.shadowRoot);
  const root = roots.find((root) => root?.querySelector("svg.a"));"""
SPECTRUM = f"""(before) => {{
  {BENCH}
  const weight = root?.querySelector("button.cell[aria-current]")?.dataset.weight;
  return weight && weight !== before && root.querySelector("svg.a .tau-label") ? weight : false;
}}"""
RANK = f"""(rank) => {{ {BENCH} return root?.querySelector("#f4-rank")?.value === rank; }}"""
DRAWN = f"""() => {{
  {BENCH}
  return root && [...root.querySelectorAll(".note")].every((note) => getComputedStyle(note).display === "none");
}}"""
EVIDENCE = """() => document.querySelector("h1")?.innerText.startsWith("Evidence")
  && document.querySelector(".js-plotly-plot .scatterlayer .trace") !== null"""


class Pages:
    """The app in a browser, and a stopwatch for every kind of click."""

    def __init__(self, page, url, wide):
        self.page, self.url, self.wide = page, url, wide
        self.seen = {}
        self.forward = True

    def timed(self, kind, seconds):
        self.seen.setdefault(kind, []).append(seconds)
        time.sleep(REST)

    def until(self, condition, argument=None):
        return self.page.wait_for_function(condition, arg=argument, timeout=WAIT).json_value()

    def view(self):
        return self.until(SPECTRUM, "")

    def open_demo(self):
        self.page.goto(f"{self.url}/workbench?base=demo:base&tuned=demo:noisy")
        self.view()
        time.sleep(2)

    def step(self, kind, name):
        before, started = self.view(), time.perf_counter()
        self.page.keyboard.press(name)
        self.until(SPECTRUM, before)
        self.timed(kind, time.perf_counter() - started)

    def move_tau(self):
        wanted = str(int(self.page.get_by_label("rank", exact=True).input_value()) + 1)
        started = time.perf_counter()
        self.page.get_by_role("button", name="Keep one direction more").click()
        self.until(RANK, wanted)
        self.seen.setdefault(KINDS[1], []).append(time.perf_counter() - started)
        self.until(DRAWN)
        self.timed(KINDS[2], time.perf_counter() - started)

    def change_page(self):
        started = time.perf_counter()
        self.page.get_by_role("link", name="Evidence").first.click()
        self.until(EVIDENCE)
        self.timed(KINDS[4], time.perf_counter() - started)
        started = time.perf_counter()
        self.page.get_by_role("link", name="Workbench").first.click()
        self.view()
        self.timed(KINDS[5], time.perf_counter() - started)

    def block(self, clicks, first_wide):
        """Go through the demo, then through weights of the other pair that nobody has looked at."""
        self.open_demo()
        for number in range(clicks):
            self.step(KINDS[0], "n" if number % SEEN < SEEN // 2 else "p")
            self.move_tau()
            self.change_page()
        base, tuned = self.wide
        follow_link(self.page, f"{self.url}/workbench?base={base}&tuned={tuned}&weight=layers.{first_wide}.weight")
        self.view()
        time.sleep(2)
        for _ in range(max(2, clicks // 4)):
            self.step(KINDS[3], "n")
        found, self.seen = self.seen, {}
        return found


@contextlib.contextmanager
def running_export(pair, out, jobs):
    """Begin or continue the export as the drawer does; it runs until the block ends, or the bench fails."""
    command = [sys.executable, "-m", "dgviz", "repair", *map(str, pair), str(out)]
    job = start_job(command, jobs, "bench", lock=out, cwd=ROOT)
    while job.state == "running" and not job.progress():
        time.sleep(0.1)
    begun = job.progress()
    time.sleep(1)
    yield
    ended = job.progress()
    if job.state != "running":
        raise SystemExit(f"the export was {job.state} before the clicks were done: {job.error or 'too small a pair'}")
    print(f"exported {begun.fraction:.0%} to {ended.fraction:.0%}", file=sys.stderr)
    job.cancel()
    while job.state == "running":
        time.sleep(0.1)
    job.forget()


def measure(home, rounds, clicks):
    """Return the seconds of every kind of click, without and with an export."""
    wide = planted_pair(home, SHAPE, COUNT, 5e-3, SHARDS, torch.bfloat16)
    server = AppServer(home)
    os.environ.update({key: server.environment[key] for key in ("DGVIZ_CACHE_DIR", "DGVIZ_STATE_DIR")})
    found = {False: {}, True: {}}
    server.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=CHROMIUM_FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(server.entrance)
            pages = Pages(page, server.url, wide)
            pages.block(SEEN, 0)  # every weight of the demo has been seen, all libraries are loaded
            first = SEEN
            for number in range(2 * rounds):
                busy = number % 2 == 1
                export = running_export(wide, home / "out", home / "state" / "jobs")
                with export if busy else contextlib.nullcontext():
                    for kind, seconds in pages.block(clicks, first).items():
                        found[busy].setdefault(kind, []).extend(seconds)
                first += clicks // 4 + 3
                print(f"block {number + 1} of {2 * rounds} done", file=sys.stderr)
            browser.close()
    finally:
        server.stop()
    return found


def table(found):
    """Return medians and 95th percentiles in Markdown."""
    lines = [
        "| | clicks, each | without: median | 95 % | with an export: median | 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        cells = [str(min(len(found[busy][kind]) for busy in (False, True)))]
        for busy in (False, True):
            values = found[busy][kind]
            cells += [f"{statistics.median(values):.2f}", f"{statistics.quantiles(values, n=20)[-1]:.2f}"]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="blocks without and with the export, each")
    parser.add_argument("--clicks", type=int, default=10, help="of every kind in a block")
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dgviz-bench-") as name:
        found = measure(Path(name), options.rounds, options.clicks)
    size = COUNT * SHAPE[0] * SHAPE[1] * 2 / 2**20
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    text = (
        f"Seconds from a click to the answer, without and with the export of {size:.0f} MiB ({COUNT} matrices of "
        f"{SHAPE[0]} x {SHAPE[1]}); {datetime.date.today()}, {machine}.\n\n{table(found)}"
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
