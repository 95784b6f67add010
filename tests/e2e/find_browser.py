"""Find the Chromium that the browser tests drive, and install one where there is none.

`python tests/e2e/find_browser.py` prints its path, or says in one sentence why there is none and exits with 1.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADVICE = (
    "no Chromium was found for the browser tests and none could be installed: install the package 'chromium' "
    "(or Google Chrome) and run make test again, or leave these tests out with: python -m pytest -m 'not e2e'"
)


def find_browser():
    """Return the path of a Chromium that starts here, or None: the system's first, then Playwright's own."""
    found = [path for name in NAMES if (path := shutil.which(name)) and starts(path)]
    if found:
        return found[0]
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if starts(path) else None


def starts(path):
    """Return whether the browser runs at all: one without its shared libraries exists but does not start."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install_commands():
    """Return the ways to install one, each a list of commands, in the order to try them."""
    ways = [[[sys.executable, "-m", "playwright", "install", "chromium"]]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        ways.append([["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]])
    return ways


def main():
    for way in [[], *install_commands()]:
        for command in way:
            print("$", *command, flush=True)
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, timeout=900)
            except (OSError, subprocess.TimeoutExpired) as error:
                print(error, flush=True)
        browser = find_browser()
        if browser is not None:
            print(f"browser tests use {browser}")
            return 0
    print(ADVICE, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
