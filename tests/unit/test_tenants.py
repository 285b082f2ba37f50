"""One key's names are invisible to another; the admin sees all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin import Request, Response
from atlas_plugin.testing import Application, FakeHost

Ask = Callable[..., tuple[int, Any]]

ONE, TWO = "0123456789abcdef", "fedcba9876543210"
ADMIN = ""


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(memory_save_path=str(tmp_path / "memory"), admin_key="secret")


@pytest.fixture
def ask(host: FakeHost, start: Callable[[FakeHost], Application]) -> Ask:
    """ask(owner, operation, **fields): whose key it is; the admin's is empty."""
    application = start(host)

    def asked(owner: str, operation: str, *, is_admin: bool | None = None, **fields: Any) -> tuple[int, Any]:
        request = Request(
            "POST",
            f"/v1/atlas/memory/{operation}",
            body=msgspec.json.encode(fields),
            tenant=owner,
            is_admin=owner == ADMIN if is_admin is None else is_admin,
        )
        response = application.handle(request)
        assert isinstance(response, Response)
        document = msgspec.json.decode(response.body)
        return response.status, document["data" if response.status == 200 else "error"]

    return asked


def names(page: tuple[int, Any]) -> list[str]:
    assert page[0] == 200
    return [entry["context_id"] for entry in page[1]["contexts"]]


def test_everybody_has_names_of_their_own(ask: Ask, host: FakeHost) -> None:
    for tenant in (ONE, TWO, ADMIN):
        code, saved = ask(tenant, "save", context_id="same", state={"of": tenant})
        assert (code, saved["context_id"]) == (200, "same")
    host.use_session(f"{ONE}/session", last_used=2e9, ram_bytes=7)
    for tenant in (ONE, TWO, ADMIN):
        assert ask(tenant, "load", context_id="same")[1]["state"] == {"of": tenant}
    assert names(ask(ONE, "list")) == ["same", "session"]
    assert names(ask(TWO, "list")) == ["same"]
    for operation in ("load", "pin", "unpin", "delete"):
        code, error = ask(TWO, operation, context_id="session")
        assert (code, error["type"]) == (404, "not_found")
        assert ONE not in error["message"]
    assert ask(ONE, "pin", session_id="session") == (200, {"session_id": "session", "pinned": True})
    assert host.live_sessions[f"{ONE}/session"].pinned
    assert ask(TWO, "delete", context_id="same")[0] == 200
    assert ask(ONE, "load", context_id="same")[0] == 200
    assert ask(ONE, "delete", context_id="session") == (200, {"context_id": "session", "freed_bytes": 7})
    assert host.live_sessions == {}


def test_the_admin_sees_all(ask: Ask) -> None:
    for tenant in (ONE, TWO, ADMIN):
        ask(tenant, "save", context_id="same", state={"of": tenant})
    code, page = ask(ADMIN, "list")
    assert code == 200
    assert [(entry["context_id"], entry.get("tenant")) for entry in page["contexts"]] == [
        ("same", ONE),
        ("same", TWO),
        ("same", None),
    ]
    for tenant in (ONE, TWO, ""):
        listed = ask(ADMIN, "list", tenant=tenant)
        assert names(listed) == ["same"]
        assert "tenant" not in listed[1]["contexts"][0]
        assert ask(ADMIN, "load", context_id="same", tenant=tenant)[1]["state"] == {"of": tenant}
    assert ask(ADMIN, "delete", context_id="same", tenant=ONE)[0] == 200
    assert ask(ONE, "load", context_id="same")[0] == 404
    assert ask(ADMIN, "load", context_id="same")[0] == 200


@pytest.mark.parametrize("operation", ["save", "load", "list", "delete", "pin", "unpin"])
def test_only_the_admin_may_name_a_tenant(ask: Ask, operation: str) -> None:
    fields: dict[str, Any] = {} if operation == "list" else {"context_id": "a"}
    if operation == "save":
        fields["state"] = {}
    for wanted in (ONE, TWO, ""):
        code, error = ask(ONE, operation, tenant=wanted, **fields)
        assert (code, error["type"]) == (403, "authentication_error")
        assert "--atlas-admin-key" in error["message"]


def test_without_tenants_nobody_sees_what_keys_had(ask: Ask) -> None:
    ask(ONE, "save", context_id="private", state={})
    ask("", "save", context_id="common", state={})
    assert names(ask("", "list", is_admin=False)) == ["common"]
    assert ask("", "load", is_admin=False, context_id="private")[0] == 404


def test_pages(ask: Ask) -> None:
    for tenant in (ONE, TWO, ADMIN):
        for number in range(7):
            ask(tenant, "save", context_id=f"{number}", state={})

    def pages(owner: str, **fields: Any) -> list[list[str]]:
        seen: list[list[str]] = []
        cursor = None
        while cursor is not None or not seen:
            code, page = ask(owner, "list", limit=3, cursor=cursor, **fields)
            assert code == 200
            seen.append([entry.get("tenant", "") + entry["context_id"] for entry in page["contexts"]])
            cursor = page["next_cursor"]
        return seen

    own = [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert pages(ONE) == pages(TWO) == pages(ADMIN, tenant=TWO) == pages(ADMIN, tenant="") == own
    everything = [name for page in pages(ADMIN) for name in page]
    assert sorted(everything) == sorted(f"{tenant}{n}" for tenant in (ONE, TWO, "") for n in range(7))
    assert len(everything) == 21
    of_admin = ask(ADMIN, "list", limit=3)[1]["next_cursor"]
    code, error = ask(TWO, "list", cursor=of_admin)
    assert code == 400, "an admin's cursor names a tenant"
    assert "field 'cursor'" in error["message"]
    assert names(ask(TWO, "list", limit=3, cursor=ask(ONE, "list", limit=3)[1]["next_cursor"])) == own[1]
