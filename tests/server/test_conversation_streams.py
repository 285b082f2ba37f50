"""Streams with X-Conversation-Id: kept for who comes back, and several of one name."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import ENDLESS_OPTIONS, Leaving, endless
from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD
from tests.server.harness import Server, stream_events
from tests.server.preloading import SlowBatches

CHAT = "/v1/chat/completions"
HEADERS = {"X-Conversation-Id": "c"}
STREAM = "/v1/stream?conv_id=c"
N_TOKENS = 30
ENDLESS = -1
BATCH_MS = 50


@pytest.fixture
def slow(start_server: StartServer, tmp_path: Path) -> Iterator[Server]:
    """Two slots, where a token takes BATCH_MS."""
    batches = SlowBatches(tmp_path, BATCH_MS)
    yield start_server([*ONE_THREAD, *ENDLESS_OPTIONS, "-b", "32"], batches.environment)
    batches.set(0)


def body(text: str, n_tokens: int = N_TOKENS, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": n_tokens, "ignore_eos": True, "stream": True, **fields}


def is_whole(text: str) -> bool:
    """Whether a stream came to its end: every token, the reason of its end, and the mark behind it."""
    events = stream_events(text)
    finish = [choice["finish_reason"] for event in events for choice in event.get("choices", [])]
    return finish.count("length") == 1 and text.rstrip().endswith("data: [DONE]")


def n_processing(server: Server) -> int:
    return sum(slot["is_processing"] for slot in server.get("/slots").json())


def begin_and_leave(server: Server, n_tokens: int) -> None:
    """A client that leaves after the first piece of its stream."""
    with server.client.stream("POST", CHAT, json=body("Hello!", n_tokens), headers=HEADERS) as answer:
        next(answer.iter_text())


def test_two_that_are_read_both_end(slow: Server) -> None:
    with slow.client.stream("POST", CHAT, json=body("Hello!"), headers=HEADERS) as first:
        pieces = first.iter_text()
        begun = next(pieces)
        assert is_whole(slow.post(CHAT, body("Bye!", 2), headers=HEADERS).text)
        assert is_whole(begun + "".join(pieces))


def test_three_at_once_on_one_slot(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*ONE_THREAD, "-np", "1"], SlowBatches(tmp_path, BATCH_MS).environment)

    def ask(text: str) -> str:
        return server.post(CHAT, body(text, 10), headers=HEADERS).text

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(ask, ["Count!", "Count on!", "Count further!"]))
    assert [is_whole(answer) for answer in answers] == [True] * 3


def test_one_whose_client_has_left_goes_on_and_is_found(slow: Server) -> None:
    begin_and_leave(slow, N_TOKENS)
    assert is_whole(slow.get(STREAM).text)


def test_one_whose_client_has_left_ends_when_another_begins(slow: Server) -> None:
    begin_and_leave(slow, ENDLESS)
    slow.wait_until(lambda: n_processing(slow) == 1)
    assert is_whole(slow.post(CHAT, body("Bye!", 2), headers=HEADERS).text)
    slow.wait_until(lambda: n_processing(slow) == 0)
    assert is_whole(slow.get(STREAM).text)


@pytest.mark.parametrize("text", ["Hello!", "Item. " * 200], ids=["generation", "prefill"])
def test_one_whose_client_has_left_can_be_ended(slow: Server, text: str) -> None:
    client = Leaving(slow, body(text, ENDLESS), "X-Conversation-Id: c\r\n", path=CHAT)
    slow.wait_until(lambda: n_processing(slow) == 1)
    client.leave()
    assert slow.client.delete(STREAM).status_code == 204
    slow.wait_until(lambda: n_processing(slow) == 0)
    assert slow.get(STREAM).status_code == 404


def test_what_is_not_streamed_takes_no_name(slow: Server) -> None:
    with slow.client.stream("POST", CHAT, json=body("Hello!"), headers=HEADERS) as left:
        next(left.iter_text())
        assert slow.post(CHAT, body("Bye!", 2, stream=False), headers=HEADERS).status_code == 200
    assert is_whole(slow.get(STREAM).text)


def test_one_that_is_refused_cuts_none(slow: Server) -> None:
    with slow.client.stream("POST", CHAT, json=body("Hello!"), headers=HEADERS) as first:
        pieces = first.iter_text()
        begun = next(pieces)
        assert slow.post(CHAT, body("Item. " * 4000, 2), headers=HEADERS).status_code == 400
        assert is_whole(begun + "".join(pieces))


def test_one_that_leaves_before_its_turn_takes_the_name_from_none(start_server: StartServer) -> None:
    """As a page does that is reloaded, and asks anew."""
    server = start_server([*ONE_THREAD, "-np", "1", "--metrics", *ENDLESS_OPTIONS])

    def wait_for_queue(n_waiting: int) -> None:
        text = f"llamacpp:requests_deferred {n_waiting}\n"
        server.wait_until(lambda: text in server.get("/metrics").text)

    with ThreadPoolExecutor(1) as threads:
        with endless(server):
            first = Leaving(server, body("Hello!"), "X-Conversation-Id: c\r\n", path=CHAT)
            wait_for_queue(1)
            second = threads.submit(begin_and_leave, server, N_TOKENS)
            wait_for_queue(2)
            first.leave()
            wait_for_queue(1)
        second.result()
    assert is_whole(server.get(STREAM).text)
