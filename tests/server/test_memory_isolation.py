"""No answer is made from the state of another conversation or of other settings, or from shifted state."""

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    COLD,
    ONE_THREAD,
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
from tests.server.gguf_files import write_control_vector
from tests.server.harness import STOCK_BINARY, Server

ROUNDS = 20
SEED = 20261122


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, to compare with."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield running


def assert_comes_back(server: Server, cold: Server, told: Conversation) -> None:
    """A new conversation is stored, and reused after a restart."""
    first = told.ask(server)
    assert first.text == cold_chat(cold, told.messages[:-1]).text
    flush(server)
    kill_and_start(server)
    second = told.ask(server, ASK_CITY)
    assert second.recalls(first)
    assert second.text == cold_chat(cold, told.messages[:-1]).text


class TestConcurrentConversations:
    def test_evicted_all_the_time(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        chooser = random.Random(SEED)
        budgets = ["--atlas-l1-cache-size", "2000000", "--atlas-l2-cache-size", "4000000"]
        server = start_server([*memory_options(tmp_path), *budgets])
        prompts = [
            Conversation(number).asking(question) for number in range(6) for question in (ASK_NAME, ASK_CITY)
        ]
        expected = [cold_chat(cold, prompt).text for prompt in prompts]
        assert len(set(expected)) == len(prompts)
        with ThreadPoolExecutor(4) as threads:
            for _ in range(ROUNDS):
                order = chooser.sample(range(len(prompts)), 8)
                answers = threads.map(lambda number: chat(server, prompts[number]), order)
                assert [answer.text for answer in answers] == [expected[number] for number in order]
        status = memory_status(server)
        assert status["ram"]["evicted"] > 0
        assert status["disk"]["evicted"] > 0
        assert status["results"]["restored"] > 0

    def test_little_room(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        """All slots share the cells of two such prompts: what is restored finds others' state in its way."""
        cells = ["-np", "4", "-c", "2048", "--kv-unified"]
        server = start_server([*memory_options(tmp_path), *cells])
        prompts = [Conversation(number, n_items=90).asking(ASK_NAME) for number in range(4)]
        expected = [cold_chat(cold, prompt).text for prompt in prompts]
        with ThreadPoolExecutor(2) as threads:
            for _ in range(4):
                answers = threads.map(lambda prompt: chat(server, prompt), prompts)
                assert [answer.text for answer in answers] == expected
        results = memory_status(server)["results"]
        assert results["restored"] > 0

    def test_client_goes_away(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        server = start_server(memory_options(tmp_path))
        told = Conversation(0)
        endless = {"messages": told.asking(ASK_NAME), "max_tokens": 1000, "ignore_eos": True, "stream": True}
        for n_pieces in (1, 2, 5, 20):
            with server.client.stream("POST", "/v1/chat/completions", json=endless) as response:
                for _ in zip(range(n_pieces), response.iter_lines(), strict=False):
                    pass
            for prompt in (told.asking(ASK_CITY), Conversation(n_pieces).asking(ASK_NAME)):
                assert chat(server, prompt).text == cold_chat(cold, prompt).text
        flush(server)
        kill_and_start(server)
        answer = chat(server, told.asking(ASK_CITY))
        assert answer.reused > 0
        assert answer.text == cold_chat(cold, told.asking(ASK_CITY)).text


class TestOtherSettings:
    @pytest.mark.parametrize(
        "options",
        [["-ctk", "q8_0"], ["--rope-freq-base", "10001"], ["-fa", "off"]],
        ids=" ".join,
    )
    def test_do_not_mix(self, start_server: StartServer, tmp_path: Path, options: list[str]) -> None:
        ours = start_server(memory_options(tmp_path))
        others = Server([*memory_options(tmp_path), *options], directory=tmp_path)
        self.check(ours, others)

    @pytest.mark.parametrize(
        "options", [["-c", "2048"], ["-np", "1"], ["-b", "64", "-ub", "32"], ["-kvu"]], ids=" ".join
    )
    def test_that_change_no_state(
        self, start_server: StartServer, tmp_path: Path, options: list[str]
    ) -> None:
        ours = start_server(memory_options(tmp_path))
        told = Conversation(1, n_items=8)
        first = told.ask(ours)
        ours.stop()
        with Server([*memory_options(tmp_path), *options], directory=tmp_path) as others:
            assert chat(others, told.asking(ASK_CITY)).recalls(first)

    def test_control_vector_does_not_mix(self, start_server: StartServer, tmp_path: Path) -> None:
        vector = write_control_vector(tmp_path / "vector.gguf")
        ours = start_server(memory_options(tmp_path))
        others = Server([*memory_options(tmp_path), "--control-vector", vector], directory=tmp_path)
        self.check(ours, others)

    @staticmethod
    def check(ours: Server, others: Server) -> None:
        told = Conversation(1)
        first = told.ask(ours)
        root = memory_status(ours)["root"]
        ours.stop()
        with others:
            answer = chat(others, told.asking(ASK_CITY), atlas={})
            assert (answer.reused, answer.reason) == (0, "no_match")
            assert memory_status(others)["root"] != root
            assert answer.text == cold_chat(others, told.asking(ASK_CITY)).text
            others.stop()
        ours.start()
        assert memory_status(ours)["root"] == root
        assert chat(ours, told.asking(ASK_CITY)).recalls(first)


class TestInexactState:
    """State that a fresh prefill would not give is not kept, and does not spoil its slot."""

    def test_shifted_context(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        shifting = ["-np", "1", "-c", "512", "--context-shift", "--atlas-block-tokens", "16"]
        server = start_server([*memory_options(tmp_path), *shifting])
        prompt = tokenize(server, render(server, Conversation(2, n_items=40).asking(ASK_NAME)))
        n_discard = 64
        body = {
            "prompt": prompt,
            "n_predict": 512 - len(prompt) + n_discard // 2,
            "n_discard": n_discard,
            "ignore_eos": True,
            "return_tokens": True,
            "temperature": 0,
        }
        everything = prompt + server.post("/completion", body).json()["tokens"]
        flush(server)
        assert server.logged("context shift")
        kill_and_start(server)

        def first_token(asked: Server, tokens: list[int], **fields: Any) -> Any:
            return asked.post(
                "/completion", {"prompt": tokens, "n_predict": 1, "temperature": 0, **fields}
            ).json()

        shifted = everything[:1] + everything[1 + n_discard :]
        found = first_token(server, shifted, atlas={})
        assert found["atlas"]["reason"] == "no_match"
        assert found["content"] == first_token(cold, shifted, **COLD)["content"]
        found = first_token(server, prompt, atlas={})
        assert found["timings"]["cache_n"] >= len(prompt) - 16
        assert found["content"] == first_token(cold, prompt, **COLD)["content"]
        assert_comes_back(server, cold, Conversation(3))

    def test_slot_is_used_again_after_a_shift(
        self, start_server: StartServer, tmp_path: Path, cold: Server
    ) -> None:
        server = start_server([*memory_options(tmp_path), "-np", "1", "-c", "512", "--context-shift"])
        endless = {"max_tokens": 300, "ignore_eos": True}
        chat(server, Conversation(2).asking(ASK_NAME), **endless)
        assert_comes_back(server, cold, Conversation(3))

    @pytest.mark.parametrize("system", ["", filler(10)], ids=["nothing-common", "common-system-prompt"])
    def test_slot_is_used_again_after_an_unwanted_prompt(
        self, start_server: StartServer, tmp_path: Path, cold: Server, system: str
    ) -> None:
        server = start_server([*memory_options(tmp_path), "-np", "1"])
        chat(server, Conversation(4, system=system).asking(ASK_NAME), **COLD)
        assert_comes_back(server, cold, Conversation(5, system=system))

    def test_slots_are_used_again_after_several_choices(
        self, start_server: StartServer, tmp_path: Path, cold: Server
    ) -> None:
        server = start_server(memory_options(tmp_path))
        told = Conversation(6)
        body = {"messages": told.asking(ASK_NAME), "temperature": 0, "max_tokens": 16, "n": 2}
        choices = server.post("/v1/chat/completions", body).json()["choices"]
        expected = cold_chat(cold, told.asking(ASK_NAME)).text
        assert [choice["message"]["content"] for choice in choices] == [expected] * 2
        others = [Conversation(7), Conversation(8)]
        firsts = [other.ask(server, id_slot=slot) for slot, other in enumerate(others)]
        flush(server)
        kill_and_start(server)
        for other, first in zip(others, firsts, strict=True):
            assert other.ask(server, ASK_CITY).recalls(first)

    def test_several_prompts_at_once(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        server = start_server(memory_options(tmp_path))
        messages = [Conversation(number).asking(ASK_NAME) for number in range(3)]
        prompts = [render(server, each) for each in messages]
        body = {"prompt": prompts, "temperature": 0, "n_predict": 16}
        expected = [cold_chat(cold, each).text for each in messages]
        for reused in (0, 250):
            answers = server.post("/completion", body).json()
            assert [answer["content"] for answer in answers] == expected
            assert min(answer["timings"]["cache_n"] for answer in answers) >= reused
            flush(server)
            kill_and_start(server)

    def test_slot_files(self, start_server: StartServer, tmp_path: Path, cold: Server) -> None:
        told = Conversation(9)
        slots = tmp_path / "slots"
        slots.mkdir()
        server = start_server([*memory_options(tmp_path), "--slot-save-path", slots])
        first = told.ask(server, id_slot=0)
        assert server.post("/slots/0?action=save", {"filename": "told"}).json()["n_saved"] > 0
        server.stop()
        # Without the memory's own copy, only the file can have it.
        shutil.rmtree(tmp_path / "memory")
        server.start()
        assert server.post("/slots/0?action=restore", {"filename": "told"}).json()["n_restored"] > 0
        second = told.ask(server, ASK_CITY, id_slot=0)
        assert second.recalls(first)
        assert second.text == cold_chat(cold, told.messages[:-1]).text
        flush(server)
        # what it put in is what a prefill gives, and it says so
        kill_and_start(server)
        again = chat(server, told.asking(ASK_NAME), id_slot=0)
        assert again.recalls(second)
        assert again.text == cold_chat(cold, told.asking(ASK_NAME)).text
        assert_comes_back(server, cold, Conversation(10))
