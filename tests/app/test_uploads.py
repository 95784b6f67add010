"""What the server holds of uploaded files has a bound."""

import asyncio
from types import SimpleNamespace

import pytest
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from dgviz.app.uploads import BoundUploads


@pytest.fixture
def manager(monkeypatch):
    """Streamlit's store of uploads, in a server that runs."""
    manager = MemoryUploadedFileManager("/_stcore/upload_file")
    monkeypatch.setattr(runtime, "get_instance", lambda: SimpleNamespace(uploaded_file_mgr=manager))
    return manager


def ask(method, manager):
    """Ask for an upload's address; what is sent is stored. Return status and body."""
    sent = []

    async def store(scope, receive, send):
        if scope["method"] == "PUT":
            file_id = str(len(manager.file_storage["page"]))
            manager.add_file("page", UploadedFileRec(file_id, "scores.csv", "text/csv", bytes(600)))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/_stcore/upload_file/page/a", "headers": []}
    asyncio.run(BoundUploads(store, limit=1000)(scope, None, send))
    return sent[0]["status"], sent[1]["body"].decode()


def test_an_upload_too_many_is_refused_until_one_is_taken_away(manager):
    assert [ask("PUT", manager)[0] for _ in range(3)] == [204, 204, 413]
    assert "holds 1.2 KiB of uploaded files, of 1,000 B" in ask("PUT", manager)[1]
    assert ask("GET", manager)[0] == ask("DELETE", manager)[0] == 204
    manager.remove_file("page", "0")
    assert ask("PUT", manager)[0] == 204
    manager.remove_session_files("page")
    assert ask("PUT", manager)[0] == 204
