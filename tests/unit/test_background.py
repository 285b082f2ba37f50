"""What is kept of responses in the background: their end with their server, and events made anew."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atlas_plugin.responses import events
from atlas_plugin.responses.unfinished import fail_abandoned, settled
from atlas_plugin.storage import open_responses
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.responses import UNKNOWN_EVENT, ResponseStore
from atlas_plugin.storage.running_servers import RunningServers

TENANT = "0123456789abcdef"
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello, Ada!", "annotations": [], "logprobs": []}],
}
THOUGHT = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "A name."}],
}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


def begin(database: Database, name: str, server: str, last_event: int | None = None) -> None:
    response = {"id": name, "status": "queued", "background": True, "output": []}
    asked = [{"role": "user", "content": "Hi"}]
    ResponseStore(database).put(TENANT, name, "", asked, response, last_event=last_event, server=server)


def shown(database: Database, name: str) -> dict[str, Any]:
    response: dict[str, Any] = msgspec.json.decode(ResponseStore(database).get(TENANT, name).response)
    return response


class TestServers:
    def test_one_that_ended(self, tmp_path: Path) -> None:
        servers = RunningServers(tmp_path)
        assert servers.runs(servers.own_name())
        assert servers.own_name() == servers.own_name()
        assert RunningServers(tmp_path).runs(servers.own_name())
        code = (
            "import sys; from pathlib import Path\n"
            "from atlas_plugin.storage.running_servers import RunningServers\n"
            f"print(RunningServers(Path({str(tmp_path)!r})).own_name(), flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout
            name = other.stdout.readline().decode().strip()
            assert servers.runs(name)
            other.kill()
            other.wait()
        assert not servers.runs(name)
        assert [path.name for path in tmp_path.iterdir()] == [f"server-{servers.own_name()}.lock"]

    @pytest.mark.parametrize("name", ["", "../../etc/passwd", "0123456789abcdef"])
    def test_a_name_that_is_none(self, tmp_path: Path, name: str) -> None:
        assert not RunningServers(tmp_path).runs(name)


class TestAbandoned:
    def test_those_of_servers_that_are_gone_fail(self, database: Database, tmp_path: Path) -> None:
        servers = RunningServers(tmp_path)
        begin(database, "own", servers.own_name())
        begin(database, "others", "0123456789abcdef")
        begin(database, "streamed", "0123456789abcdef", last_event=UNKNOWN_EVENT)
        assert fail_abandoned(database, servers) == 2
        assert shown(database, "own")["status"] == "queued"
        for name in ("others", "streamed"):
            response = shown(database, name)
            assert response["status"] == "failed"
            assert "the server was stopped" in response["error"]["message"]
        assert ResponseStore(database).get(TENANT, "streamed").last_event == UNKNOWN_EVENT
        assert [one.response_id for one in open_responses.find_all(database)] == ["own"]
        assert fail_abandoned(database, servers) == 0

    def test_one_that_ended_or_was_deleted_is_left_alone(self, database: Database, tmp_path: Path) -> None:
        store = ResponseStore(database)
        for name in ("complete", "deleted", "damaged"):
            begin(database, name, "0123456789abcdef")
        complete = {"id": "complete", "status": "completed", "background": True, "output": []}
        store.put(TENANT, "complete", "", [], complete)
        store.delete(TENANT, "deleted")
        with database.write("damage") as connection:
            connection.execute("UPDATE responses SET record = x'00' WHERE id = 'damaged'")
        fail_abandoned(database, RunningServers(tmp_path))
        assert shown(database, "complete") == complete
        assert open_responses.find_all(database) == []


class TestSettled:
    def test_what_nobody_makes_has_failed(self, database: Database, tmp_path: Path) -> None:
        """Its end could not be kept, or its server was killed a moment ago."""
        servers, others = RunningServers(tmp_path), RunningServers(tmp_path)
        begin(database, "own", servers.own_name())
        begin(database, "abandoned", "0123456789abcdef")
        begin(database, "others", others.own_name())
        for name, status in (("own", "failed"), ("abandoned", "failed"), ("others", "queued")):
            kept = settled(database, servers, TENANT, name)
            assert msgspec.json.decode(kept.response)["status"] == status
        assert [one.response_id for one in open_responses.find_all(database)] == ["others"]


class TestEvents:
    @staticmethod
    def of(response: dict[str, Any], last: int, after: int = -1) -> list[dict[str, Any]]:
        text = b"".join(events.replayed(response, last, after)).decode()
        assert text.count("event: ") == text.count("data: ")
        return [msgspec.json.decode(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def test_each_item_has_its_own(self) -> None:
        response = {"id": "resp_1", "status": "completed", "output": [THOUGHT, MESSAGE, CALL], "usage": {}}
        made = self.of(response, 40)
        assert [event["type"].removeprefix("response.") for event in made] == [
            *("created", "queued", "in_progress"),
            *("output_item.added", "reasoning_text.delta", "reasoning_text.done", "output_item.done"),
            *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
            *("content_part.done", "output_item.done"),
            *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"),
            *("output_item.done", "completed"),
        ]
        assert [event["sequence_number"] for event in made] == [*range(len(made) - 1), 40]
        assert made[-1]["response"] == response
        assert made[0]["response"] == {
            **response,
            "status": "queued",
            "output": [],
            "usage": None,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
        }
        [text] = [event["delta"] for event in made if event["type"] == "response.output_text.delta"]
        assert text == "Hello, Ada!"

    def test_who_had_some_gets_the_last(self) -> None:
        response = {"id": "resp_1", "status": "incomplete", "output": [MESSAGE]}
        assert [event["type"] for event in self.of(response, 40, 20)] == ["response.incomplete"]
        assert self.of(response, 40, 40) == []
        assert len(self.of(response, 40, 3)) == len(self.of(response, 40)) - 4

    def test_where_nobody_knows_how_many_there_were(self) -> None:
        response = {"id": "resp_1", "status": "failed", "output": []}
        [last] = self.of(response, UNKNOWN_EVENT, 57)
        assert (last["type"], last["sequence_number"]) == ("response.failed", 58)
        assert [event["sequence_number"] for event in self.of(response, UNKNOWN_EVENT)] == [0, 1, 2, 3]
