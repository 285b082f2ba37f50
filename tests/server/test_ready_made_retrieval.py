"""The ready-made plugin `retrieval` in the real server: documents, what the model gets, and sources."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.testing import LiveServer, StartServer
from atlas_plugin.testing.server import Answer
from tests.server.harness import write_plugin
from tests.server.test_ready_made_prompts import PROBE

CHAT = "/v1/chat/completions"
DOCUMENTS = "/v1/atlas/x/retrieval/documents"
SEARCH = "/v1/atlas/x/retrieval/search"
ADA, BEN, ROOT = "key-of-ada", "key-of-ben", "key-of-root"
TRAINS = "Trains to Lisbon leave at noon from platform seven."
QUESTION = "When do trains to Lisbon leave?"
USER = {"role": "user", "content": QUESTION}


def options(directory: Path, **fields: Any) -> dict[str, Any]:
    """What starts a server with the plugin, and with one that shows prompts."""
    path = directory / "atlas.toml"
    given = {"file": str(directory / "retrieval.sqlite3"), "template": "FOUND {passages}", **fields}
    rows = [f"{name} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for name, v in given.items()]
    path.write_text("\n".join(["[plugins.retrieval]", *rows]), encoding="utf-8")
    plugins = ["retrieval", str(write_plugin(directory, PROBE))]
    return {"plugins": plugins, "arguments": ["--atlas-config", str(path)]}


class Client:
    """Asks with a key."""

    def __init__(self, server: LiveServer, key: str = "", **headers: str) -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str) -> Any:
        return self.server.get(path, self.headers).json()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.post(path, body, {**self.headers, **named})

    def delete(self, path: str) -> int:
        return self.server._ask("DELETE", path, b"", self.headers).status

    def add(self, text: str, **fields: Any) -> dict[str, Any]:
        answer = self.post(DOCUMENTS, {"text": text, **fields})
        assert answer.status == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def prompt(self, body: dict[str, Any], path: str = CHAT, **headers: str) -> str:
        answer = self.post(path, body, X_Show="1", **headers)
        assert answer.status == 200, answer.text
        return str(answer.json()["prompt"])

    def ids(self, query: str = "") -> list[str]:
        return [row["id"] for row in self.get(DOCUMENTS + query)["documents"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("server")
    given = options(directory, share=True)
    given["arguments"] += ["--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ROOT]
    with LiveServer(directory=directory, **given) as server:
        Client(server, ADA).add(TRAINS, id="trains", title="Timetable")
        Client(server, ADA).add("Bread is baked in the morning.", id="bread")
        Client(server, ROOT).add("All offices close on Friday.", id="offices")
        yield server


def shown(question: str, found: str = "") -> str:
    """The demo model's template."""
    before = f"FOUND {found}\n\n" if found else ""
    return f"<|user|>{before}{question}<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [USER]}),
        (CHAT, {"messages": [USER], "stream": True}),
        ("/v1/messages", {"messages": [USER]}),
        ("/v1/responses", {"input": QUESTION}),
    ],
)
def test_passages_stand_before_the_question(server: LiveServer, path: str, body: dict[str, Any]) -> None:
    found = f"[1] Timetable\n{TRAINS}"
    assert Client(server, ADA).prompt(body, path) == shown(QUESTION, found)
    assert Client(server, ADA).prompt(body, path, X_Retrieval="off") == shown(QUESTION)


def test_parts_stay_parts(server: LiveServer) -> None:
    for path, field, kind in ((CHAT, "messages", "text"), ("/v1/responses", "input", "input_text")):
        body = {field: [{"role": "user", "content": [{"type": kind, "text": QUESTION}]}]}
        prompt = Client(server, ADA).prompt(body, path)
        assert prompt.index("FOUND") < prompt.index(TRAINS) < prompt.index(QUESTION)


def test_the_last_question_counts(server: LiveServer) -> None:
    messages = [USER, {"role": "assistant", "content": "At noon."}, {"role": "user", "content": "And bread?"}]
    prompt = Client(server, ADA).prompt({"messages": messages})
    assert TRAINS not in prompt
    assert prompt.endswith("FOUND Bread is baked in the morning.\n\nAnd bread?<|end|><|assistant|>")


def test_what_fits_nothing_is_left_alone(server: LiveServer) -> None:
    client = Client(server, ADA)
    for text in ("Zebras?", "?!", "NOT (", '"'):
        assert client.prompt({"messages": [{"role": "user", "content": text}]}) == shown(text)
    assert client.prompt({"prompt": QUESTION}, "/v1/completions") == QUESTION


def test_tenants_find_their_own_and_what_is_shared(server: LiveServer) -> None:
    body = {"messages": [{"role": "user", "content": "trains bread offices"}]}
    ada, ben, root = (Client(server, key).prompt(body) for key in (ADA, BEN, ROOT))
    assert "Lisbon" in ada and "baked" in ada and "Friday" in ada
    assert "Lisbon" not in ben and "baked" not in ben and "Friday" in ben
    assert "Lisbon" not in root and "Friday" in root
    assert Client(server, ADA).ids() == ["bread", "trains"]
    assert Client(server, BEN).ids() == []
    assert Client(server, BEN).delete(f"{DOCUMENTS}/trains") == 404
    assert Client(server, BEN).delete(f"{DOCUMENTS}/offices") == 404
    # The name of a tenant is no word that can be looked for.
    for word in ("everybody", "tenant"):
        assert Client(server, BEN).post(SEARCH, {"text": word}).json() == {"passages": []}


def test_documents_are_replaced_and_deleted(server: LiveServer) -> None:
    client = Client(server, BEN)
    made = client.add("Ferries sail at six.")
    assert made["passages"] == 1
    client.add("Ferries sail at nine.", id=made["id"])
    (listed,) = client.get(DOCUMENTS)["documents"]
    assert (listed["id"], listed["characters"], listed["passages"]) == (made["id"], 21, 1)
    found = client.post(SEARCH, {"text": "ferries"}).json()["passages"]
    assert [passage["text"] for passage in found] == ["Ferries sail at nine."]
    assert client.delete(f"{DOCUMENTS}/{made['id']}") == 200
    assert client.delete(f"{DOCUMENTS}/{made['id']}") == 404
    assert client.post(SEARCH, {"text": "ferries"}).json() == {"passages": []}


def test_documents_are_listed_piece_by_piece(server: LiveServer) -> None:
    client = Client(server, ROOT)
    assert client.ids("?limit=1") == ["offices"]
    assert client.ids("?after=offices") == []
    assert client.server.get(f"{DOCUMENTS}?limit=0", client.headers).status == 400


@pytest.mark.parametrize(
    ("body", "named"),
    [({}, "text"), ({"text": ""}, "text"), ({"text": " "}, "text"), ({"text": "a", "id": "a/b"}, "id")],
)
def test_a_document_that_is_none(server: LiveServer, body: dict[str, Any], named: str) -> None:
    answer = Client(server, BEN).post(DOCUMENTS, body)
    assert answer.status == 400
    assert named in answer.json()["error"]["message"]


def test_sources_are_named_only_where_asked_for(server: LiveServer) -> None:
    body = {"messages": [USER], "max_tokens": 1}
    client = Client(server, ADA)
    assert "retrieval" not in client.post(CHAT, body).json()
    named = client.post(CHAT, body, X_Retrieval="sources").json()
    assert named["retrieval"] == {"sources": [{"id": "trains", "title": "Timetable", "passage": 0}]}
    nothing = client.post(
        CHAT, {**body, "messages": [{"role": "user", "content": "Zebras?"}]}, X_Retrieval="sources"
    )
    assert nothing.json()["retrieval"] == {"sources": []}
    metrics = client.server.get("/v1/atlas/metrics/prometheus", client.headers).text
    assert 'atlas_retrieval_searches_total{result="found"}' in metrics


def test_what_comes_before_the_question_is_reused(server: LiveServer) -> None:
    system = {"role": "system", "content": "Speak of trains, and of nothing else. " * 8}

    def ask(text: str) -> dict[str, Any]:
        body = {"messages": [system, {"role": "user", "content": text}], "max_tokens": 1}
        timings: dict[str, Any] = Client(server, ADA).post(CHAT, body).json()["timings"]
        return timings

    ask(QUESTION)
    assert ask("And bread?")["cache_n"] > 64


def test_as_part_of_the_instructions_and_only_when_asked(atlas_server: StartServer, tmp_path: Path) -> None:
    given = options(tmp_path, role="system", always=False, passages=1, max_documents=2)
    client = Client(atlas_server(**given))
    client.add(TRAINS, id="trains")
    client.add("Lisbon has trams.", id="trams")
    assert client.post(DOCUMENTS, {"text": "One more."}).status == 413
    client.add("Lisbon has trams, too.", id="trams")
    body = {"messages": [{"role": "system", "content": "OWN"}, USER]}
    plain = f"<|system|>OWN<|end|><|user|>{QUESTION}<|end|><|assistant|>"
    assert client.prompt(body) == plain
    expected = plain.replace("OWN", f"OWN\n\nFOUND {TRAINS}")
    assert client.prompt(body, X_Retrieval="on") == expected
    # They outlive the server.
    client.server.kill()
    client.server.start()
    assert client.ids() == ["trains", "trams"]
    assert client.prompt(body, X_Retrieval="on") == expected
    assert (tmp_path / "retrieval.sqlite3").stat().st_mode & 0o777 == 0o600
