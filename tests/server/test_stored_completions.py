"""Chat completions that are kept: what "store": true keeps, and what clients may ask of it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.server.comparison import normalised
from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD, kill_and_start, memory_options
from tests.server.harness import Server, stream_events, write_plugin
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key
from tests.server.test_openai_sdk import CALL, TEMPLATE

ROUTE = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "My name is Nora. What is my name?"}]
FIELDS: dict[str, Any] = {"messages": MESSAGES, "model": "any", "temperature": 0, "seed": 1, "max_tokens": 8}

CALLING = {**CALL, "tool_choice": "required"}

PLUGIN = """
from atlas_plugin import Modify, hookimpl


def redacted(part):
    return {**part, "content": "N."} if part.get("content") else part


@hookimpl
def on_response(request, answer):
    for choice in answer["choices"]:
        choice["message"] = redacted(choice["message"])
    return Modify(answer)


@hookimpl(batch=64)
def on_stream_chunk(request, chunk):
    events = list(chunk.events)
    for event in events:
        for choice in event["choices"]:
            choice["delta"] = redacted(choice["delta"])
    return Modify(events)
"""


def client_of(server: Server) -> Any:
    """The official SDK; of its types, which are many, nothing is asked here."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(server: Server, **fields: Any) -> Any:
    """The answer, or the chunks of a stream."""
    answer = server.post(ROUTE, {**FIELDS, "store": True, **fields})
    assert answer.status_code == 200, answer.text
    return stream_events(answer.text) if fields.get("stream") else answer.json()


def name_of(answer: Any) -> str:
    name: str = (answer[0] if isinstance(answer, list) else answer)["id"]
    return name


def kept(server: Server, answer: Any) -> dict[str, Any]:
    found = server.get(f"{ROUTE}/{name_of(answer)}")
    assert found.status_code == 200, found.text
    document: dict[str, Any] = found.json()
    return document


def problem_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    return message


def listed(server: Server, **query: Any) -> list[str]:
    answer = server.get(ROUTE, params=query)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("completions")
    template = directory / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    options = [*memory_options(directory), *ONE_THREAD, "--jinja", "--chat-template-file", template]
    with Server(options, directory=directory) as running:
        yield running


def test_the_sdk_finds_it_after_a_kill(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    with closing(client_of(server)) as client:
        answer = client.chat.completions.create(**FIELDS, store=True, metadata={"topic": "names"})
    kill_and_start(server)
    with closing(client_of(server)) as client:
        completions = client.chat.completions
        found = completions.retrieve(answer.id)
        assert found.choices[0].message.content == answer.choices[0].message.content
        assert (found.metadata, found.usage.total_tokens) == ({"topic": "names"}, answer.usage.total_tokens)
        assert [one.id for one in completions.list(metadata={"topic": "names"}, limit=1)] == [answer.id]
        [message] = completions.messages.list(answer.id)
        assert (message.role, message.content) == ("user", MESSAGES[0]["content"])
        assert completions.update(answer.id, metadata={"topic": "others"}).metadata == {"topic": "others"}
        assert list(completions.list(metadata={"topic": "names"})) == []
        assert completions.delete(answer.id).deleted
        with pytest.raises(openai.NotFoundError):
            completions.retrieve(answer.id)


class TestKept:
    def test_with_what_the_request_said(self, keeping: Server) -> None:
        answer = ask(keeping, atlas={}, user="ada", top_p=0.5)
        found = kept(keeping, answer)
        assert answer["atlas"]["degraded"] is False
        for key in ("object", "id", "created", "model"):
            assert found[key] == answer[key]
        assert found["usage"]["total_tokens"] == answer["usage"]["total_tokens"]
        expected = {
            "temperature": 0,
            "top_p": 0.5,
            "seed": 1,
            "input_user": "ada",
            "tools": None,
            "metadata": {},
        }
        assert {key: found[key] for key in expected} == expected
        assert not {"atlas", "timings", "store"} & found.keys()

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"n": 2, "temperature": 1},
            {"logprobs": True, "top_logprobs": 2},
            {"stop": ["Nora"]},
            CALLING,
        ],
        ids=["text", "choices", "logprobs", "stop", "call"],
    )
    def test_a_stream_as_a_whole_answer(self, keeping: Server, fields: dict[str, Any]) -> None:
        whole = ask(keeping, **fields)
        chunks = ask(keeping, **fields, stream=True)
        assert not [chunk for chunk in chunks if chunk.get("usage")]
        found = [kept(keeping, answer) for answer in (whole, chunks)]
        for one in found:
            one.pop("request_id")
            one["usage"].pop("prompt_tokens_details")  # the second finds the first one's prompt
        for choices in zip(found[0]["choices"], found[1]["choices"], strict=True):
            # streams have no probabilities of the token that ends them
            n = len((choices[1]["logprobs"] or {"content": []})["content"])
            assert n > 0 or "logprobs" not in fields
            if n > 0:
                choices[0]["logprobs"]["content"] = choices[0]["logprobs"]["content"][:n]
        assert normalised(found[0]) == normalised(found[1])
        assert found[1]["choices"][0]["message"].get("tool_calls") or fields is not CALLING
        if "n" not in fields:
            assert (
                found[0]["choices"][0]["message"] | whole["choices"][0]["message"]
                == found[0]["choices"][0]["message"]
            )

    def test_only_where_it_is_wanted(self, keeping: Server) -> None:
        for fields in ({"store": False}, {"store": None}, {"store": "true"}):
            answer = ask(keeping, **fields, metadata={"a": 1})
            assert "metadata" not in answer
            problem_of(keeping.get(f"{ROUTE}/{answer['id']}"), 404)

    def test_wrong_metadata_are_named(self, keeping: Server) -> None:
        answer = keeping.post(ROUTE, {**FIELDS, "store": True, "metadata": {"a": 1}})
        assert "'metadata'" in problem_of(answer, 400)
        path = f"{ROUTE}/{ask(keeping)['id']}"
        for wrong in ({}, {"metadata": 7}, {"metadata": {"a": "b" * 513}}, {"metadata": {"a" * 65: ""}}):
            assert "'metadata" in problem_of(keeping.post(path, wrong), 400)
        assert keeping.post(path, {"metadata": {"ä" * 64: "ö" * 512}}).status_code == 200
        assert keeping.post(path, {"metadata": None}).json()["metadata"] == {}

    def test_what_a_request_said(self, keeping: Server) -> None:
        parts = [{"type": "text", "text": "What is my name?"}]
        asked = [{"role": "system", "content": "Be brief."}, *MESSAGES, {"role": "user", "content": parts}]
        name = ask(keeping, messages=asked)["id"]
        found = keeping.get(f"{ROUTE}/{name}/messages").json()
        assert [(one["role"], one["content"]) for one in found["data"]] == [
            ("system", "Be brief."),
            ("user", MESSAGES[0]["content"]),
            ("user", None),
        ]
        assert [one["content_parts"] for one in found["data"]] == [None, None, parts]
        assert [one["id"] for one in found["data"]] == [f"{name}-{i}" for i in range(3)]
        page = keeping.get(f"{ROUTE}/{name}/messages", params={"limit": 1, "after": f"{name}-0"}).json()
        assert (page["first_id"], page["has_more"]) == (f"{name}-1", True)

    def test_it_is_no_response(self, keeping: Server) -> None:
        name = ask(keeping)["id"]
        assert name in problem_of(keeping.get(f"/v1/responses/{name}"), 404)
        assert name in problem_of(keeping.client.delete(f"/v1/responses/{name}"), 404)
        body = {"input": "Hi", "previous_response_id": name}
        assert name in problem_of(keeping.post("/v1/responses", body), 400)
        response = keeping.post("/v1/responses", {"input": "Hi", "max_output_tokens": 1}).json()["id"]
        assert response in problem_of(keeping.get(f"{ROUTE}/{response}"), 404)


class TestLists:
    def test_pages_and_filters(self, keeping: Server) -> None:
        topic = {"metadata": {"topic": "lists"}}
        found = [ask(keeping, **topic, max_tokens=1) for _ in range(3)]
        names = [one["id"] for one in found]
        wanted = {"metadata[topic]": "lists"}
        assert listed(keeping, **wanted) == names
        assert listed(keeping, **wanted, order="desc", limit=2) == [names[2], names[1]]
        assert listed(keeping, **wanted, after=names[0]) == names[1:]
        assert listed(keeping, **wanted, model=found[0]["model"]) == names
        assert listed(keeping, **wanted, model="another") == []
        assert listed(keeping, order="desc", limit=3) == names[::-1]
        page = keeping.get(ROUTE, params={**wanted, "limit": 2}).json()
        assert {key: page[key] for key in page if key != "data"} == {
            "object": "list",
            "first_id": names[0],
            "last_id": names[1],
            "has_more": True,
        }

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=²", "order=up", "after=chatcmpl-none"])
    def test_what_is_wrong_is_named(self, keeping: Server, query: str) -> None:
        assert f"'{query.split('=')[0]}'" in problem_of(keeping.get(f"{ROUTE}?{query}"), 400)

    def test_routes_of_llama_server_stay(self, keeping: Server) -> None:
        counted = keeping.post(f"{ROUTE}/input_tokens", {"messages": MESSAGES})
        assert counted.json()["object"] == "response.input_tokens"
        assert "completion id" in problem_of(keeping.post(f"{ROUTE}/control", {}), 400)


class TestNotKept:
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    def test_without_a_memory_path(self, start_server: StartServer, stream: bool) -> None:
        server = start_server()
        answer = ask(server, stream=stream, atlas={})
        atlas = answer[-1]["atlas"] if stream else answer["atlas"]
        assert atlas["degraded"] is True
        assert "--atlas-memory-path" in atlas["reason"]
        assert server.logged("the chat completion was not kept")
        assert "--atlas-memory-path" in problem_of(server.get(ROUTE), 503)

    def test_where_storing_is_off_or_fails(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path))
        for stream in (False, True):
            answer = server.post("/v1/atlas/config", {"settings": {"store_responses": False}})
            assert answer.status_code == 200
            assert "--atlas-store-responses" in str(ask(server, stream=stream, atlas={}))
            server.post("/v1/atlas/config", {"settings": {"store_responses": True}})
            ask(server)
            n = len(listed(server))
            # a disk that fails: no file can be made where the database was
            database = next(tmp_path.rglob("contexts.sqlite3"))
            database.rename(tmp_path / "away")
            database.mkdir()
            assert "the chat completion was not kept" in str(ask(server, stream=stream, atlas={}))
            database.rmdir()
            (tmp_path / "away").rename(database)
            assert len(listed(server)) == n


def test_what_plugins_redacted_stays_redacted(start_server: StartServer, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, PLUGIN)
    server = start_server(
        [*memory_options(tmp_path), "--atlas-plugin", plugin, "--atlas-hook-deadline-ms", "60000"]
    )
    for stream in (False, True):
        answer = ask(server, stream=stream)
        assert set(kept(server, answer)["choices"][0]["message"]["content"]) == set("N.")


def test_encrypted(start_server: StartServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    server = start_server([*memory_options(tmp_path), "--atlas-encryption-key-file", key])
    answer = ask(server)
    found = kept(server, answer)
    server.kill()
    files = [path for path in tmp_path.rglob("contexts.sqlite3*") if path.is_file()]
    assert files
    assert not [path for path in files if b"Nora" in path.read_bytes()]
    server.start()
    assert kept(server, answer) == found
    assert listed(server, model=found["model"]) == [found["id"]]


def test_of_a_tenant(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(key_options(tmp_path))
    ada = with_key(server, ADA)
    answer = ask(ada)
    path = f"{ROUTE}/{answer['id']}"
    assert listed(ada) == [answer["id"]]
    for other in (with_key(server, BEN), with_key(server, ADMIN)):
        assert listed(other) == []
        assert "'after'" in problem_of(other.get(f"{ROUTE}?after={answer['id']}"), 400)
        problem_of(other.get(path), 404)
        problem_of(other.get(f"{path}/messages"), 404)
        problem_of(other.post(path, {"metadata": {}}), 404)
        problem_of(other.client.delete(path), 404)
    assert with_key(server, None).get(ROUTE).status_code == 401


def test_the_route_of_vertex_ai_asks_the_model(tmp_path: Path) -> None:
    server = Server(directory=tmp_path)
    server.environment |= {"AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": str(server.port)}
    with server:
        answer = server.post("/predict", {"instances": [{"@requestFormat": "chatCompletions", **FIELDS}]})
    assert answer.json()["predictions"][0]["object"] == "chat.completion"
