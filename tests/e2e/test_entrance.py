"""Who comes in: by the token, from a page of another site, and not in a frame."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import TOKEN

pytestmark = pytest.mark.e2e
OPEN = "workbench?base=demo%3Abase&tuned=demo%3Aclean&rule=mp_edge"


def test_the_token_opens_the_page_that_was_asked_for_and_leaves_the_address(server, new_page):
    page = new_page(stranger=True)
    page.goto(f"{server.url}/{OPEN}")
    expect(page.get_by_role("heading", name="This dashboard asks for its token")).to_be_visible()
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_have_text("This is not the token of this server.")
    page.get_by_label("Token").fill(server.entrance)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("button", name=re.compile("clean")).first).to_be_visible()
    assert TOKEN not in page.url and "rule=mp_edge" in page.url
    (cookie,) = (each for each in page.context.cookies() if each["value"] == TOKEN)
    assert cookie["name"] == f"dgviz-token-{server.port}" and cookie["httpOnly"] and cookie["sameSite"] == "Strict"


@pytest.fixture
def elsewhere(server):
    """The address of a page on another port of this machine, and so of another origin."""
    socket = server.url.replace("http", "ws")
    body = f"""<a href="{server.url}/{OPEN}">a link</a><iframe src="{server.url}/"></iframe><output></output><script>
    const told = (word) => {{ document.querySelector("output").textContent += word; }};
    const stream = new WebSocket("{socket}/_stcore/stream", ["streamlit"]);
    stream.onopen = () => told("open ");
    stream.onerror = () => told("refused ");
    for (const options of [{{}}, {{ method: "PUT", body: "x" }}]) {{
      fetch("{server.url}/_stcore/host-config", {{ credentials: "include", ...options }})
        .then(() => told("open "), () => told("refused "));
    }}
    </script>"""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{other.server_port}/"
        other.shutdown()
        thread.join()


def test_a_page_on_another_port_may_lead_here_and_do_nothing_else(elsewhere, new_page):
    page = new_page()
    page.goto(elsewhere)
    expect(page.locator("output")).to_have_text("refused refused refused")
    assert [line for line in page.console if line.startswith("error: Framing") and "frame-ancestors 'none'" in line]
    page.get_by_role("link").click()
    expect(page.get_by_role("button", name=re.compile("clean")).first).to_be_visible()
    page.console.clear()  # what was refused there
