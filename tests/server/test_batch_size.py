"""`batch_size`: how many sequences of one request may hold slots at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.server.comparison import normalised
from tests.server.completions import ENDLESS_OPTIONS, complete, endless, only_atlas
from tests.server.conversations import ASK_NAME, NAMES, ONE_THREAD
from tests.server.harness import Server, stream_events

SLOTS = 4
PROMPTS = [
    f"<|user|>My name is {name}.<|assistant|>Nice to meet you, {name}!<|user|>{ASK_NAME}<|assistant|>"
    for name in NAMES[:6]
]
ANSWERS = [f"Your name is {name}." for name in NAMES[:6]]
GREEDY: dict[str, Any] = {"max_tokens": 16, "seed": 1, "cache_prompt": False}


@pytest.fixture(scope="module")
def four_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("batches")
    with Server([*ONE_THREAD, *ENDLESS_OPTIONS, "-np", str(SLOTS)], directory=directory) as running:
        yield running


def busy(server: Server) -> int:
    """Slots that compute now."""
    return sum(slot["is_processing"] for slot in server.get("/slots").json())


def choices(server: Server, path: str, batch_size: int | None, **fields: Any) -> Any:
    """The choices of an answer, or the text of each by its index when it is streamed."""
    atlas = {} if batch_size is None else {"atlas": {"batch_size": batch_size}}
    answer = complete(server, path, **{"temperature": 0, **GREEDY, **atlas, **fields})
    if not fields.get("stream"):
        return normalised(answer["choices"])
    assert batch_size is None or only_atlas(answer)
    texts: dict[int, str] = {}
    for event in filter(None, answer):
        for choice in event["choices"]:
            piece = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + piece
    return texts


class TestSlots:
    @pytest.mark.parametrize(("batch_size", "expected"), [(1, 1), (2, 2), (3, 3), (32, SLOTS)])
    def test_no_more_are_taken(self, four_slots: Server, batch_size: int, expected: int) -> None:
        four_slots.wait_until(lambda: busy(four_slots) == 0)
        atlas = {"batch_size": batch_size}
        with endless(four_slots, prompt=PROMPTS, atlas=atlas) as lines:
            four_slots.wait_until(lambda: busy(four_slots) == expected)
            events = stream_events("\n".join(next(lines) for _ in range(400)))
            assert busy(four_slots) == expected
        assert {event["index"] for event in events if event} == set(range(expected))

    def test_the_next_begins_when_one_has_ended(self, four_slots: Server) -> None:
        four_slots.wait_until(lambda: busy(four_slots) == 0)
        with ThreadPoolExecutor(1) as clients:
            answer = clients.submit(
                complete,
                four_slots,
                "/completion",
                prompt=PROMPTS,
                n_predict=250,
                ignore_eos=True,
                atlas={"batch_size": 2},
            )
            seen = set()
            while not answer.done():
                seen.add(busy(four_slots))
        assert max(seen) <= 2
        assert [each["index"] for each in answer.result()] == list(range(len(PROMPTS)))

    def test_others_find_slots(self, four_slots: Server) -> None:
        with endless(four_slots, prompt=PROMPTS, atlas={"batch_size": SLOTS - 1}):
            answer = complete(four_slots, "/completion", atlas={"session_id": "another"})
        assert answer["atlas"]["degraded"] is False


class TestAnswers:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("batch_size", [1, 2, 4])
    def test_of_several_prompts(self, four_slots: Server, batch_size: int, stream: bool) -> None:
        fields = {"prompt": PROMPTS, "stream": stream}
        answer = choices(four_slots, "/v1/completions", batch_size, **fields)
        assert answer == choices(four_slots, "/v1/completions", None, **fields)
        texts = answer if stream else {choice["index"]: choice["text"] for choice in answer}
        assert texts == dict(enumerate(ANSWERS))

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("temperature", [0, 1.5])
    def test_of_several_choices(self, four_slots: Server, temperature: float, stream: bool) -> None:
        fields = {"n": 3, "stream": stream, "temperature": temperature}
        answer, expected = (
            choices(four_slots, "/v1/chat/completions", batch_size, **fields) for batch_size in (1, None)
        )
        assert answer == expected
        assert len(answer) == 3
