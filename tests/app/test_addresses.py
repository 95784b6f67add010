"""Addresses of former pages lead on, with their query; pages tell the browser what to fetch."""

import asyncio

import pytest

from dgviz.app.addresses import MOVED, Addresses


async def _page(scope, receive, send):
    """What answers every other address."""
    kind = b"text/html; charset=utf-8" if "." not in scope["path"] else b"text/javascript"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": b"page"})


def ask(address, **options):
    """Return status and headers of what is answered."""
    sent = []

    async def send(message):
        sent.append(message)

    path, _, query = address.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    asyncio.run(Addresses(_page, **options)(scope, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("former", MOVED)
def test_a_former_address_leads_on_with_its_query(former):
    place, changes = MOVED[former]
    status, headers = ask(f"/lab/{former}?base=a%2Fb+c&show=x&other=1&other=2&empty=", base="/lab/")
    shown = changes.get("show", "x")
    plan = "&plan=open" if "plan" in changes else ""
    path, _, query = headers["location"].partition("?")
    assert status == 307 and path == f"./{place}"
    assert set(query.split("&")) == set(
        filter(None, f"base=a%2Fb+c&other=1&other=2&empty={plan}{shown and f'&show={shown}'}".split("&"))
    )


@pytest.mark.parametrize("path", ["/", "/workbench", "/layer/x", "/lab/layer", "/static/layer.js"])
def test_other_addresses_are_left_alone_and_pages_say_what_they_will_need(path):
    status, headers = ask(path, scripts=["./static/js/Chart.js"])
    assert status == 200 and ("link" not in headers) == ("." in path)
    assert "location" not in headers


def test_a_former_address_without_a_query_has_none_of_its_own():
    assert ask("/layer")[1]["location"] == "./workbench"
