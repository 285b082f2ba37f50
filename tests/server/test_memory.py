"""Conversations come back: to another slot, after a restart, after `kill -9`, whatever the client."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.server.conftest import StartServer
from tests.server.conversations import (
    APIS,
    ASK_CITY,
    ASK_NAME,
    CITIES,
    COLD,
    NAMES,
    ONE_THREAD,
    REUSED,
    Conversation,
    chat,
    cold_chat,
    filler,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    render,
    tokenize,
)
from tests.server.harness import STOCK_BINARY, Server

# The least distance of two answers that counts as a difference. Each processor rounds in its own way, so what
# batches of another size change is measured where the test runs.
NOISE = 0.0001


def likely(server: Server, prompt: list[int], **fields: Any) -> dict[int, float]:
    """The probabilities of the twenty likeliest next tokens."""
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 20, **fields}
    answer = server.post("/completion", body).json()
    return {
        each["id"]: math.exp(each["logprob"])
        for each in answer["completion_probabilities"][0]["top_logprobs"]
    }


def distance(one: dict[int, float], other: dict[int, float]) -> float:
    """How far two answers are apart: the largest difference of a token's probability, from 0 to 1.

    A token that only one of them names is at most as likely as the last that the other does.
    """
    last, other_last = min(one.values()), min(other.values())
    return max(
        abs(one.get(token, last) - other.get(token, other_last)) for token in one.keys() | other.keys()
    )


OFF = [
    pytest.param([], {}, "--atlas-memory-path DIR", id="no-path"),
    pytest.param(["--atlas-memory-path", "{memory}", "--no-atlas-auto"], {}, "--atlas-auto", id="option"),
    pytest.param(["--atlas-memory-path", "{memory}"], {"ATLAS_AUTO": "0"}, "--atlas-auto", id="environment"),
    pytest.param(
        ["--atlas-memory-path", "{memory}", "--no-atlas-memory-persistence"],
        {},
        "--atlas-memory-persistence",
        id="persistence",
    ),
]


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, to compare with."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield running


@pytest.fixture
def remembering(start_server: StartServer, tmp_path: Path) -> Server:
    """A server with an empty memory."""
    return start_server(memory_options(tmp_path))


class TestRestart:
    def test_openai_client_after_kill_9(self, remembering: Server, cold: Server) -> None:
        told = Conversation(0)
        with OpenAI(base_url=f"{remembering.url}/v1", api_key="none", max_retries=0) as client:

            def create(messages: Any) -> Any:
                typed: list[ChatCompletionMessageParam] = messages
                return client.chat.completions.create(
                    model="any", messages=typed, temperature=0, max_completion_tokens=16
                )

            first = create(told.asking(ASK_NAME))
            told.messages = [
                *told.asking(ASK_NAME),
                {"role": "assistant", "content": first.choices[0].message.content},
            ]
            flush(remembering)
            kill_and_start(remembering)
            second = create(told.asking(ASK_CITY))
        assert second.timings["cache_n"] >= REUSED * first.usage.total_tokens
        assert second.choices[0].message.content == cold_chat(cold, told.asking(ASK_CITY)).text

    def test_sigterm_needs_no_flush(self, remembering: Server, cold: Server) -> None:
        told = Conversation(1)
        first = told.ask(remembering)
        assert remembering.stop() == 0
        remembering.start()
        second = told.ask(remembering, ASK_CITY, atlas={})
        assert second.recalls(first)
        assert second.layer in (1, 2)
        assert second.text == cold_chat(cold, told.messages[:-1]).text

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    @pytest.mark.parametrize("name", APIS)
    def test_every_api(self, remembering: Server, cold: Server, name: str, stream: bool) -> None:
        api, told = APIS[name], Conversation(2)
        text, _ = api.ask(remembering, told.asking(ASK_NAME), stream=stream)
        flush(remembering)
        kill_and_start(remembering)
        told.messages = [*told.asking(ASK_NAME), {"role": "assistant", "content": text}]
        n_earlier = len(tokenize(remembering, render(remembering, told.messages)))
        text, reused = api.ask(remembering, told.asking(ASK_CITY), stream=stream)
        assert text == cold_chat(cold, told.asking(ASK_CITY)).text
        assert reused >= REUSED * n_earlier

    def test_last_message_is_edited(self, remembering: Server, cold: Server) -> None:
        told = Conversation(3)
        first = chat(remembering, told.asking(ASK_NAME))
        flush(remembering)
        kill_and_start(remembering)
        edited = chat(remembering, told.asking(ASK_CITY))
        assert edited.recalls(first)
        assert edited.text == cold_chat(cold, told.asking(ASK_CITY)).text

    def test_answer_is_generated_again(self, remembering: Server) -> None:
        told = Conversation(4)
        first = chat(remembering, told.asking(ASK_NAME))
        flush(remembering)
        kill_and_start(remembering)
        again = chat(remembering, told.asking(ASK_NAME))
        assert again.recalls(first)
        assert again.text == first.text

    def test_prompt_is_the_beginning_of_what_is_stored(self, remembering: Server, cold: Server) -> None:
        long = Conversation(5, n_items=60)
        long.ask(remembering)
        flush(remembering)
        kill_and_start(remembering)
        short = [{**long.messages[0], "content": long.messages[0]["content"].partition(" Item 40")[0]}]
        answer = chat(remembering, short, max_tokens=1)
        assert answer.reused >= REUSED * answer.prompt
        assert answer.text == cold_chat(cold, short, max_tokens=1).text

    @pytest.mark.parametrize("cut", [0, 1, 20, 300])
    def test_state_is_that_of_a_cold_run(self, remembering: Server, cold: Server, cut: int) -> None:
        """Of a text whose continuation is uncertain, so that any fault in the state shows."""
        text = " ".join(f"{NAMES[n * 7 % 20]} {CITIES[n * 3 % 20]}" for n in range(150))
        tokens = tokenize(remembering, text)
        prompt = [*tokens[: len(tokens) - cut], *tokens[-5:]]
        likely(remembering, tokens)
        flush(remembering)
        kill_and_start(remembering)
        found = likely(remembering, prompt)
        assert memory_status(remembering)["results"]["restored"] == 1
        # stock, which never lost the state, computes the rest in batches of the same size
        likely(cold, tokens, id_slot=0)
        warm = likely(cold, prompt, id_slot=0)
        computed = likely(cold, prompt, **COLD)
        noise = max(distance(warm, computed), NOISE)
        assert distance(found, warm) <= noise
        # so much does it change that a block is missing
        assert distance(likely(cold, prompt[256:], **COLD), computed) > 5 * noise

    def test_choices_that_wait_for_slots(self, start_server: StartServer, tmp_path: Path) -> None:
        """What was found for them is used once, when all slots that they need are there."""
        server = start_server([*memory_options(tmp_path), "--metrics", "--context-shift"])
        told = Conversation(7)
        first = told.ask(server)
        for slot in range(2):
            Conversation(8 + slot).ask(server, id_slot=slot)
        endless = {"prompt": "Once", "n_predict": -1, "ignore_eos": True, "stream": True, "id_slot": 0}
        with ThreadPoolExecutor(1) as others:
            with server.client.stream("POST", "/completion", json=endless) as running:
                lines = running.iter_lines()
                next(lines)
                choices = others.submit(chat, server, told.asking(ASK_CITY), n=2)
                server.wait_until(lambda: "\nllamacpp:requests_deferred 1\n" in server.get("/metrics").text)
                assert memory_status(server)["results"]["restored"] == 0
            assert choices.result().recalls(first)
        assert memory_status(server)["results"]["restored"] == 1

    @pytest.mark.parametrize("block_tokens", [16, 1024])
    def test_block_sizes(
        self, start_server: StartServer, tmp_path: Path, cold: Server, block_tokens: int
    ) -> None:
        server = start_server([*memory_options(tmp_path), "--atlas-block-tokens", str(block_tokens)])
        told = Conversation(6, n_items=130)
        first = told.ask(server)
        assert first.total > 1024
        flush(server)
        kill_and_start(server)
        second = told.ask(server, ASK_CITY)
        assert second.recalls(first)
        assert second.text == cold_chat(cold, told.messages[:-1]).text


class TestMoreConversationsThanSlots:
    @pytest.mark.parametrize(("options", "layer"), [([], 1), (["--atlas-l1-cache-size", "1"], 2)])
    def test_each_second_turn_is_reused(
        self, start_server: StartServer, tmp_path: Path, cold: Server, options: list[str], layer: int
    ) -> None:
        server = start_server([*memory_options(tmp_path), *options])
        conversations = [Conversation(number) for number in range(8)]
        firsts = [told.ask(server) for told in conversations]
        flush(server)
        seconds = [told.ask(server, ASK_CITY, atlas={}) for told in conversations]
        for told, first, second in zip(conversations, firsts, seconds, strict=True):
            assert second.recalls(first)
            assert second.text == cold_chat(cold, told.messages[:-1]).text
        layers = [answer.layer for answer in seconds]
        assert layers.count(layer) >= 6
        assert set(layers) <= {0, layer}


class TestNothingIsReused:
    def test_cache_prompt_is_off(self, remembering: Server) -> None:
        told = Conversation(7)
        first = chat(remembering, told.asking(ASK_NAME))
        flush(remembering)
        written = memory_status(remembering)["written"]
        second = chat(remembering, told.asking(ASK_NAME), atlas={}, **COLD)
        assert (second.text, second.reused, second.reason) == (first.text, 0, "cache_prompt_off")
        chat(remembering, Conversation(8).asking(ASK_NAME), **COLD)
        flush(remembering)
        assert memory_status(remembering)["written"] == written

    def test_short_prompts_are_not_looked_up(self, remembering: Server) -> None:
        answer = chat(remembering, [{"role": "user", "content": "Hi"}], atlas={})
        assert (answer.reused, answer.reason) == (0, "below_break_even")

    def test_nothing_matches(self, remembering: Server) -> None:
        Conversation(9).ask(remembering)
        answer = chat(remembering, [{"role": "user", "content": filler(20)}], atlas={})
        assert answer.reason == "no_match"
        results = memory_status(remembering)["results"]
        assert results == {**dict.fromkeys(results, 0), "no_match": 2}


class TestMemoryIsOff:
    @pytest.mark.parametrize(("options", "environment", "advice"), OFF)
    def test_stock_caches(
        self,
        start_server: StartServer,
        tmp_path: Path,
        options: list[str],
        environment: dict[str, str],
        advice: str,
    ) -> None:
        options = [option.format(memory=tmp_path / "memory") for option in options]
        server = start_server([*ONE_THREAD, *options, "--cache-ram", "100"], environment)
        conversations = [Conversation(number) for number in range(4)]
        firsts = [told.ask(server) for told in conversations]
        for told, first in zip(conversations, firsts, strict=True):
            assert told.ask(server, ASK_CITY).recalls(first)
        assert memory_status(server) is None
        assert not list(tmp_path.rglob("*.kv"))
        answer = server.post("/v1/atlas/memory/flush")
        assert answer.status_code == 503
        assert advice in answer.json()["error"]["message"]
