"""Addresses of former pages lead on, with their query; those of places have the dashboard's document."""

import asyncio

import pytest

from dgviz.app.addresses import MOVED, Addresses


async def _else(scope, receive, send):
    """What answers every other address."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"else"})


def ask(address, method="GET", **options):
    """Return status, headers and body of what is answered."""
    sent = []

    async def send(message):
        sent.append(message)

    path, _, query = address.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    asyncio.run(Addresses(_else, "<html>", **options)(scope, None, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize("former", MOVED)
def test_a_former_address_leads_on_with_its_query(former):
    place, changes = MOVED[former]
    status, headers, _ = ask(f"/lab/{former}?base=a%2Fb+c&show=x&other=1&other=2&empty=", base="/lab/")
    shown = changes.get("show", "x")
    plan = "&plan=open" if "plan" in changes else ""
    path, _, query = headers["location"].partition("?")
    assert status == 307 and path == f"./{place}"
    assert set(query.split("&")) == set(
        filter(None, f"base=a%2Fb+c&other=1&other=2&empty={plan}{shown and f'&show={shown}'}".split("&"))
    )


@pytest.mark.parametrize("path", ["/layer/x", "/lab/layer", "/static/layer.js", "/workbench/"])
def test_other_addresses_are_left_alone(path):
    status, headers, body = ask(path)
    assert status == 200 and not headers and body == b"else"


@pytest.mark.parametrize("path", ["/lab/", "/lab/workbench", "/lab/evidence?base=x"])
def test_places_have_the_document_and_browsers_ask_whether_it_changed(path):
    status, headers, body = ask(path, base="lab")
    assert status == 200 and body == b"<html>"
    assert headers["content-type"].startswith("text/html") and headers["cache-control"] == "no-cache"
    assert ask(path, "POST", base="lab")[2] == b"else"


def test_a_former_address_without_a_query_has_none_of_its_own():
    assert ask("/layer")[1]["location"] == "./workbench"
