"""The door of the server: who is let in, who is not, and what everybody is told."""

import asyncio
import re
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
import streamlit

from dgviz.app.guard import Guard, inline_scripts

TOKEN = "a-token_of.this~server"
HERE = "localhost:8501"


async def _room(scope, receive, send):
    """What is guarded."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{kind}.start", "status": 200, "headers": [(b"x-room", b"1")]})
    await send({"type": f"{kind}.body", "body": b"inside"})


def knock(path="/", kind="http", method="GET", host=HERE, cookie=None, guard=None, scheme="http", **headers):
    """Ask for a path; return status, headers by lower-case name, and body."""
    sent = []

    async def send(message):
        sent.append(message)

    path, _, query = path.partition("?")
    given = {"host": host, "cookie": cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind,
        "scheme": scheme,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value is not None],
        "server": ("127.0.0.1", 8501),
        "extensions": {"websocket.http.response": {}},
        **({"method": method} if kind == "http" else {}),
    }
    guard = guard or Guard(_room, TOKEN, ["localhost", "127.0.0.1", "::1"])
    asyncio.run(guard(scope, None, send))
    told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:]).decode()


def card(host=HERE, token=TOKEN):
    """The cookie that a browser holds for a host."""
    port = re.search(r":(\d+)$", host or "")
    return f"dgviz-token{f'-{port[1]}' if port else ''}={token}"


PLACES = ["/", "/workbench", "/static/js/index.js", "/media/x.png", "/_stcore/host-config", "/component/x/y.js"]


@pytest.mark.parametrize("path", PLACES)
def test_nothing_is_told_without_the_token(path):
    status, told, body = knock(path)
    assert status == 403 and "x-room" not in told and "inside" not in body
    assert 'name="token"' in body and "asks for its token" in body
    assert knock(path, cookie=card())[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_taken_without_the_token(method):
    assert knock("/_stcore/upload_file/a/b", method=method)[0] == 403
    assert knock(f"/_stcore/upload_file/a/b?token={TOKEN}", method=method)[0] == 403
    assert knock("/_stcore/upload_file/a/b", method=method, cookie=card())[0] == 200


def test_the_websocket_needs_the_cookie():
    assert knock("/_stcore/stream", "websocket")[0] == 403
    assert knock(f"/_stcore/stream?token={TOKEN}", "websocket")[0] == 403
    assert knock("/_stcore/stream", "websocket", cookie=card(), origin=f"http://{HERE}")[0] == 200


@pytest.mark.parametrize("wrong", [card(token="x"), card(token=""), card("a:8502"), card("a"), "\xff"])
def test_a_wrong_cookie_is_none(wrong):
    assert knock(cookie=wrong)[0] == 403


def test_the_health_endpoint_is_open_under_any_name_and_nothing_like_it_is():
    assert knock("/_stcore/health", host="10.0.0.7:80", origin="http://elsewhere.example")[0] == 200
    assert knock("/_stcore/health/")[0] == knock("/x/_stcore/health")[0] == knock("/_stcore/healthy")[0] == 403
    assert knock("/_stcore/health", "websocket")[0] == 403


def test_the_token_becomes_a_cookie_and_leaves_the_address():
    status, told, _ = knock(f"/workbench?base=a%2Fb&token={TOKEN}&tuned=c&plan=")
    assert (status, told["location"]) == (303, "./workbench?base=a%2Fb&tuned=c&plan=")
    cookie = SimpleCookie(told["set-cookie"])["dgviz-token-8501"]
    assert cookie.value == TOKEN and cookie["path"] == "/" and not cookie["secure"]
    assert cookie["httponly"] and cookie["samesite"].lower() == "strict" and not cookie["max-age"]
    assert told["cache-control"] == "no-store" and told["referrer-policy"] == "no-referrer"
    assert knock(f"/?token={TOKEN}")[1]["location"] == "./"


def test_what_is_pasted_may_be_the_whole_address():
    assert knock(f"/?token=http%3A%2F%2Flocalhost%3A8501%2F%3Ftoken%3D{TOKEN}%26base%3Da+")[0] == 303


@pytest.mark.parametrize("path", ["//elsewhere.example/", "/\\elsewhere.example", "/a:b", "/a?b", "/\r\nx: y"])
def test_the_redirect_stays_here(path):
    guard = Guard(_room, TOKEN, ["localhost"])
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "scheme": "http",
        "method": "GET",
        "path": path,
        "query_string": f"token={TOKEN}".encode(),
    }
    asyncio.run(guard({**scope, "headers": [(b"host", b"localhost")]}, None, send))
    location = dict(sent[0]["headers"])[b"location"].decode()
    assert location.startswith("./") and not re.search(r"[\r\n\\?]|//", location)


def test_a_wrong_token_is_refused_and_leaves_the_cookie_alone():
    status, told, body = knock("/?token=wrong&base=%22%3E%3Cscript%3E", cookie=card())
    assert status == 403 and "set-cookie" not in told and "not the token" in body
    assert "<script>" not in body and "&quot;&gt;&lt;script&gt;" in body
    assert knock("/", cookie=card())[0] == 200


def test_a_base_path_is_that_of_the_cookie_and_of_the_health_endpoint():
    guard = Guard(_room, TOKEN, ["localhost"], base="/lab/")
    assert (
        SimpleCookie(knock(f"/lab/?token={TOKEN}", guard=guard)[1]["set-cookie"])["dgviz-token-8501"]["path"]
        == "/lab"
    )
    assert knock("/lab/_stcore/health", guard=guard)[0] == 200 and knock("/_stcore/health", guard=guard)[0] == 403


def test_the_cookie_is_for_encrypted_connections_alone_where_it_was_given_on_one():
    status, told, _ = knock(f"/?token={TOKEN}", scheme="https", host="localhost")
    assert status == 303 and SimpleCookie(told["set-cookie"])["dgviz-token"]["secure"]
    told = knock(f"/?token={TOKEN}", x_forwarded_proto="https")[1]  # anybody may say so
    assert not SimpleCookie(told["set-cookie"])["dgviz-token-8501"]["secure"]


@pytest.mark.parametrize("name", ["localhost:8501", "LOCALHOST", "localhost.:8501", "127.0.0.1:8501", "[::1]:8501"])
def test_names_of_this_machine(name):
    assert knock(host=name, cookie=card(name))[0] == 200


@pytest.mark.parametrize(
    "name",
    [
        "elsewhere.example:8501",
        "",
        None,
        "localhost.elsewhere.example",
        "user@localhost",
        "localhost:x",
        "localhost/x",
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_foreign_name_is_one_sentence(name, kind):
    status, told, body = knock(host=name, kind=kind, cookie=card())
    assert status == 403 and body.count("\n") == 1 and "--allow-host" in body and (name or "") in body
    assert told["content-type"].startswith("text/plain")


def test_names_that_were_allowed():
    guard = Guard(_room, TOKEN, ["gpu.example", "*.lab.example"])
    for name, status in (("gpu.example", 200), ("a.lab.example:1", 200), ("lab.example", 403), ("localhost", 403)):
        assert knock(host=name, cookie=card(name), guard=guard)[0] == status
    assert knock(host="any.example", cookie=card("any.example"), guard=Guard(_room, TOKEN, ["*"]))[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:8502",
        "http://localhost",
        "http://127.0.0.1:8501",
        "http://elsewhere.example",
        "null",
        "",
        "file://",
        "http://localhost:8501@elsewhere.example",
        "http://localhost:8501.elsewhere.example",
    ],
)
@pytest.mark.parametrize(("kind", "method"), [("websocket", None), ("http", "PUT"), ("http", "GET")])
def test_another_origin_is_refused_port_and_all(origin, kind, method):
    status, _, body = knock("/_stcore/stream", kind, method, cookie=card(), origin=origin)
    assert status == 403 and "pages of" in body


@pytest.mark.parametrize(
    ("host", "origin"), [(HERE, f"http://{HERE}"), ("localhost", "https://localhost"), ("[::1]:1", "http://[::1]:1")]
)
def test_the_servers_own_origin(host, origin):
    assert knock("/_stcore/stream", "websocket", host=host, origin=origin, cookie=card(host))[0] == 200


def test_whoever_was_led_here_by_another_site_asks_once_more_and_brings_the_cookie():
    led = knock("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert led[0] == 403 and 'http-equiv="refresh"' in led[2]
    assert "refresh" not in knock("/", sec_fetch_site="same-origin")[2]
    assert "refresh" not in knock("/", method="POST", sec_fetch_site="cross-site")[2]


def test_a_page_that_was_open_before_the_server_was_started_again_says_so():
    status, _, body = knock("/workbench/_stcore/host-config", cookie=card(token="old"), sec_fetch_site="same-origin")
    assert status == 401 and "new token" in body


def test_a_policy_for_every_page_even_those_that_are_refused():
    page = (Path(streamlit.__file__).parent / "static" / "index.html").read_text()
    assert len(inline_scripts(page)) == page.count("<script>") > 0
    guard = Guard(_room, TOKEN, ["localhost"], scripts=inline_scripts(page))
    for told in (knock(guard=guard)[1], knock(guard=guard, cookie=card())[1], knock(guard=guard, host="x")[1]):
        policy = dict(part.split(" ", 1) for part in told["content-security-policy"].split("; "))
        assert policy["frame-ancestors"] == policy["object-src"] == "'none'" and policy["default-src"] == "'self'"
        assert "unsafe" not in policy["script-src"] and "sha256-" in policy["script-src"]
        assert not re.search(r"https?:|\*", told["content-security-policy"])
        assert told["x-content-type-options"] == "nosniff" and told["cross-origin-resource-policy"] == "same-origin"


def test_without_a_token_names_and_origins_still_count():
    guard = Guard(_room, "", ["localhost"], frame_ancestors="https://portal.example")
    status, told, _ = knock(guard=guard)
    assert status == 200 and "frame-ancestors https://portal.example" in told["content-security-policy"]
    assert knock(guard=guard, host="elsewhere.example")[0] == 403
    assert knock("/", "websocket", guard=guard, origin="http://localhost:9")[0] == 403
    assert knock("/?token=x", guard=guard)[0] == 200
