"""`history: server`: clients send only what is new; and the records of those that send everything."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.server.completions import ENDLESS_OPTIONS, complete, endless
from tests.server.conformance import configure, data_of, message_of, operate, pool
from tests.server.conftest import StartServer
from tests.server.conversations import ASK_NAME, GREEDY, Message, memory_options
from tests.server.harness import Server, stream_events

NAME = "My name is Nora. I live in Oslo."
CHAT_ROUTE = "/v1/chat/completions"
CLIENTS = 8


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def kept_by_server(session: str) -> dict[str, Any]:
    return {"atlas": {"session_id": session, "history": "server"}}


def say(server: Server, session: str, *messages: Message, **fields: Any) -> tuple[Message, int]:
    """Sends messages on a session; the answer's message and the tokens of the prompt."""
    answer = complete(server, CHAT_ROUTE, messages=messages, **GREEDY, **kept_by_server(session), **fields)
    assert answer["atlas"]["degraded"] is False
    return answer["choices"][0]["message"], answer["usage"]["prompt_tokens"]


def record(server: Server, session: str) -> list[Message]:
    """What the server recorded of a session."""
    loaded = data_of(operate(server, "load", {"context_id": session}))
    messages: list[Message] = loaded["session"]["conversation_history"]
    return messages


def tokens(server: Server, *messages: Message) -> int:
    """Of the prompt that upstream makes of a conversation."""
    counted = server.post(f"{CHAT_ROUTE}/input_tokens", {"messages": messages})
    number: int = counted.json()["input_tokens"]
    return number


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("history")
    options = [*memory_options(directory), *ENDLESS_OPTIONS, "-np", "4"]
    with Server(options, directory=directory) as running:
        yield running


class TestKeptByTheServer:
    def test_only_the_new_message_is_sent(self, remembering: Server) -> None:
        first, _ = say(remembering, "nora", user(NAME))
        second, n_tokens = say(remembering, "nora", user(ASK_NAME))
        assert second["content"] == "Your name is Nora."
        assert n_tokens == tokens(remembering, user(NAME), first, user(ASK_NAME))
        assert record(remembering, "nora") == [user(NAME), first, user(ASK_NAME), second]

    def test_streamed(self, remembering: Server) -> None:
        say(remembering, "streamed", user(NAME))
        events = complete(
            remembering,
            CHAT_ROUTE,
            messages=[user(ASK_NAME)],
            stream=True,
            **GREEDY,
            **kept_by_server("streamed"),
        )
        pieces = [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]
        assert "".join(pieces) == "Your name is Nora."
        assert [message["role"] for message in record(remembering, "streamed")] == ["user", "assistant"] * 2
        assert record(remembering, "streamed")[-1]["content"] == "Your name is Nora."

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/responses", {"input": ASK_NAME, "max_output_tokens": 16, "temperature": 0}),
            ("/v1/messages", {"messages": [user(ASK_NAME)], "max_tokens": 16, "temperature": 0}),
        ],
    )
    def test_on_other_routes(self, remembering: Server, path: str, body: dict[str, Any]) -> None:
        session = path.replace("/", ".")
        say(remembering, session, user(NAME))
        answer = remembering.post(path, {**body, **kept_by_server(session)})
        assert answer.status_code == 200, answer.text
        assert "Your name is Nora." in answer.text
        assert len(record(remembering, session)) == 4

    def test_instructions_take_the_place_of_those_recorded(self, remembering: Server) -> None:
        first, _ = say(remembering, "told", system("Be brief."), user(NAME))
        second, n_tokens = say(remembering, "told", user(ASK_NAME))
        sent = [user(NAME), first, user(ASK_NAME)]
        assert n_tokens == tokens(remembering, system("Be brief."), *sent)
        _, n_tokens = say(remembering, "told", system("Be kind."), user("Thanks."))
        assert n_tokens == tokens(remembering, system("Be kind."), *sent, second, user("Thanks."))

    def test_first_of_several_choices(self, remembering: Server) -> None:
        first, _ = say(remembering, "choices", user(NAME), n=2)
        assert record(remembering, "choices") == [user(NAME), first]

    def test_survives_kill_9(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path))
        first, _ = say(server, "nora", user(NAME))
        server.kill()
        server.start()
        assert record(server, "nora") == [user(NAME), first]
        second, _ = say(server, "nora", user(ASK_NAME))
        assert second["content"] == "Your name is Nora."

    def test_ends_with_its_session(self, remembering: Server) -> None:
        say(remembering, "deleted", user(NAME))
        data_of(operate(remembering, "delete", {"context_id": "deleted"}))
        _, n_tokens = say(remembering, "deleted", user(ASK_NAME))
        assert n_tokens == tokens(remembering, user(ASK_NAME))


class TestBegunAnswers:
    """A last message of the assistant is what the answer goes on from: both are one message."""

    BEGUN: ClassVar[Message] = {"role": "assistant", "content": "Your name", "x_draft": "yes"}

    @pytest.mark.parametrize("history", ["server", "client"])
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "how",
        [{}, {"continue_final_message": True, "add_generation_prompt": False}],
        ids=["implied", "asked"],
    )
    def test_is_one_message(
        self, remembering: Server, history: str, stream: bool, how: dict[str, Any]
    ) -> None:
        session = f"begun-{history}-{stream}-{len(how)}"
        first, _ = say(remembering, session, user(NAME))
        sent = [user(ASK_NAME), self.BEGUN]
        if history == "client":
            sent = [user(NAME), first, *sent]
        atlas = {"session_id": session, "history": history}
        body = {"messages": sent, "stream": stream, "atlas": atlas, **how, **GREEDY}
        assert remembering.post(CHAT_ROUTE, body).status_code == 200
        whole = {**self.BEGUN, "content": "Your name is Nora."}
        expected = [user(NAME), first, user(ASK_NAME), whole]
        remembering.wait_until(lambda: record(remembering, session) == expected)

    @pytest.mark.parametrize("flags", [["--no-prefill-assistant"], ["--no-jinja"], ["--skip-chat-parsing"]])
    def test_is_one_message_of_servers_that_do_not_go_on(
        self, start_server: StartServer, tmp_path: Path, flags: list[str]
    ) -> None:
        server = start_server([*memory_options(tmp_path), *flags])
        answer, _ = say(server, "begun", user(NAME), self.BEGUN)
        text = self.BEGUN["content"] + answer["content"]
        assert record(server, "begun") == [user(NAME), {**self.BEGUN, "content": text}]
        say(server, "begun", user(ASK_NAME))

    @pytest.mark.parametrize("sent", [[], [system("Be brief.")], [BEGUN], [system("Be brief."), BEGUN]])
    def test_nothing_to_answer(self, remembering: Server, sent: list[Message]) -> None:
        """Upstream would go on with the last answer, which is recorded already."""
        for session in ("begun-new", "begun-known"):
            if session == "begun-known":
                say(remembering, session, user(NAME))
            body = {"messages": sent, **kept_by_server(session)}
            message = message_of(remembering.post(CHAT_ROUTE, body), 400)
            assert message.startswith("Validation error in field 'messages': there is nothing to answer")

    def test_nothing_to_continue(self, remembering: Server) -> None:
        body = {"messages": [user(NAME)], "continue_final_message": True, "add_generation_prompt": False}
        message = message_of(remembering.post(CHAT_ROUTE, {**body, **kept_by_server("begun-by-user")}), 400)
        assert message.startswith("Validation error in field 'continue_final_message': ")


class TestEmptyAnswers:
    STRICT = (
        "{%- for m in messages -%}"
        "{%- if m.role != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}"
        "{{ raise_exception('roles must take turns') }}{%- endif -%}"
        "<|{{ m.role }}|>{{ m.content }}<|end|>{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
    )

    @pytest.mark.parametrize("stream", [False, True])
    def test_have_a_role(self, start_server: StartServer, tmp_path: Path, stream: bool) -> None:
        """A template that checks roles would refuse the session from then on."""
        template = tmp_path / "strict.jinja"
        template.write_text(self.STRICT, encoding="utf-8")
        server = start_server([*memory_options(tmp_path), "--jinja", "--chat-template-file", template])
        body = {"messages": [user("Hello")], "stop": ["H", "I", "N", "Y"], "stream": stream}
        assert server.post(CHAT_ROUTE, {**body, **GREEDY, **kept_by_server("empty")}).status_code == 200
        empty = {"role": "assistant", "content": ""}
        assert record(server, "empty") == [user("Hello"), empty]
        _, n_tokens = say(server, "empty", user(NAME))
        assert n_tokens == tokens(server, user("Hello"), empty, user(NAME))


class TestTurns:
    """Requests on one session are served one after the other."""

    def test_none_is_lost(self, remembering: Server) -> None:
        texts = [
            f"My name is {name}." for name in ("Nora", "Ivan", "Ruth", "Hugo", "Emma", "Carl", "Iris", "Zoe")
        ]
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(partial(say, remembering, "busy"), map(user, texts)))
        messages = record(remembering, "busy")
        assert [message["role"] for message in messages] == ["user", "assistant"] * len(texts)
        exchanges = dict(zip([m["content"] for m in messages[::2]], messages[1::2], strict=True))
        assert exchanges == {text: answer for text, (answer, _) in zip(texts, answers, strict=True)}
        # each had all those before it
        prompts = [tokens(remembering, *messages[:end]) for end in range(1, len(messages), 2)]
        assert sorted(n_tokens for _, n_tokens in answers) == prompts

    def test_waiting_ends(self, start_server: StartServer, tmp_path: Path) -> None:
        options = [*memory_options(tmp_path), *ENDLESS_OPTIONS, "--atlas-pool-timeout-ms", "50"]
        server = start_server(options)
        body = {"messages": [user(NAME)], **kept_by_server("nora")}
        with endless(server, CHAT_ROUTE, **body):
            refused = server.post(CHAT_ROUTE, body)
            say(server, "another", user(NAME))
        assert "session" in message_of(refused, 503)
        assert int(refused.headers["Retry-After"]) >= 1

    def test_what_a_client_did_not_wait_for_is_not_recorded(self, remembering: Server) -> None:
        first, _ = say(remembering, "left", user(NAME))
        with endless(remembering, CHAT_ROUTE, messages=[user("Tell me.")], **kept_by_server("left")):
            pass
        second, _ = say(remembering, "left", user(ASK_NAME))
        assert record(remembering, "left") == [user(NAME), first, user(ASK_NAME), second]
        remembering.wait_until(lambda: pool(remembering)["in_use"] == 0)


class TestKeptByTheClient:
    @pytest.mark.parametrize("stream", [False, True])
    def test_is_recorded_as_it_was_sent(self, remembering: Server, stream: bool) -> None:
        session = f"client-{stream}"
        sent = [user(NAME), {"role": "assistant", "content": "Hello, Nora!"}, user(ASK_NAME)]
        body = {"messages": sent, "stream": stream, "atlas": {"session_id": session}, **GREEDY}
        answer = remembering.post(CHAT_ROUTE, body)
        if stream:
            events = [event for event in stream_events(answer.text) if event["choices"]]
            content = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
        else:
            content = answer.json()["choices"][0]["message"]["content"]
        expected = [*sent, {"role": "assistant", "content": content}]

        def is_recorded() -> bool:
            loaded = operate(remembering, "load", {"context_id": session})
            return loaded.status_code == 200 and bool(
                loaded.json()["data"]["session"]["conversation_history"]
            )

        remembering.wait_until(is_recorded)
        assert record(remembering, session) == expected
        # and may be gone on with by the server
        _, n_tokens = say(remembering, session, user("Thanks."))
        assert n_tokens == tokens(remembering, *expected, user("Thanks."))

    def test_may_be_left_unrecorded(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*memory_options(tmp_path), "--no-atlas-record-conversations"])

        def chat_as_the_web_ui(session: str) -> None:
            sent = {"messages": [user(NAME)], **GREEDY}
            headers = {"X-Conversation-Id": session}
            assert server.client.post(CHAT_ROUTE, json=sent, headers=headers).status_code == 200

        chat_as_the_web_ui("private")
        say(server, "asked-for", user(NAME))
        assert configure(server, record_conversations=True).status_code == 200
        chat_as_the_web_ui("recorded")
        server.wait_until(lambda: record(server, "recorded"))  # after all that came before it
        assert record(server, "private") == []
        assert record(server, "asked-for")[0] == user(NAME)


class TestRefusals:
    @pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
    def test_a_route_without_messages(self, remembering: Server, path: str) -> None:
        message = message_of(remembering.post(path, {"prompt": "a", **kept_by_server("nora")}), 400)
        assert message.startswith("Validation error in field 'atlas.history': ")

    def test_no_session(self, remembering: Server) -> None:
        body = {"messages": [user(NAME)], "atlas": {"history": "server"}}
        message = message_of(remembering.post(CHAT_ROUTE, body), 400)
        assert message.startswith("Validation error in field 'atlas.history': ")
        assert "atlas.session_id" in message

    def test_a_conversation_id_is_a_session(self, remembering: Server) -> None:
        for name in ("header-1", "any text, é"):
            headers = {b"X-Conversation-Id": name.encode()}
            for text in (NAME, ASK_NAME):
                body = {"messages": [user(text)], "atlas": {"history": "server"}, **GREEDY}
                answer = remembering.client.post(CHAT_ROUTE, json=body, headers=headers)
            assert answer.json()["choices"][0]["message"]["content"] == "Your name is Nora."
            assert len(record(remembering, answer.json()["atlas"]["session_id"])) == 4

    def test_no_memory_path(self, start_server: StartServer) -> None:
        server = start_server()
        body = {"messages": [user(NAME)], **kept_by_server("nora")}
        answer = server.post(CHAT_ROUTE, body)
        assert "--atlas-memory-path" in message_of(answer, 503)
