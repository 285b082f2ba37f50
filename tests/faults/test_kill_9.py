"""`kill -9` at any moment under load: the server starts again with what was flushed; no answer is wrong."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    ONE_THREAD,
    Answer,
    Conversation,
    Message,
    chat,
    cold_chat,
    flush,
    memory_options,
    memory_status,
    wait_for_memory,
)
from tests.server.harness import STOCK_BINARY, Server

CRASHES_AT_EACH_MOMENT = 5

# More than slots, so that requests wait and slots change hands.
LOADS = 3
# The first conversations go on from crash to crash, loads choose from the others.
LASTING = 4
OTHERS = range(20, 80)

# Items of a conversation: about 60 tokens, and 1,400.
SHORT, LONG = 3, 150
OPTIONS = ["--no-warmup", "--atlas-block-tokens", "16"]


def question(number: int, n_items: int = SHORT) -> list[Message]:
    return Conversation(number, n_items).asking(ASK_NAME)


class Reference:
    """What untouched upstream answers."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._texts: dict[int, str] = {}

    def text(self, number: int) -> str:
        """The answer to that conversation's question."""
        if number not in self._texts:
            self._texts[number] = cold_chat(self.server, question(number)).text
        return self._texts[number]


class Load:
    """Asks conversation after conversation until the connection breaks."""

    def __init__(self, server: Server, chooser: random.Random) -> None:
        self.server = server
        self.numbers = chooser.choices(OTHERS, k=10_000)
        self.texts: list[str] = []

    def run(self) -> None:
        try:
            for number in self.numbers:
                self.texts.append(chat(self.server, question(number)).text)
        except httpx.TransportError:
            pass

    def check(self, reference: Reference) -> None:
        """The answers that came, the first of them again, and the one that did not."""
        for number, text in zip(self.numbers, self.texts, strict=False):
            assert text == reference.text(number)
        for number in {self.numbers[0], self.numbers[len(self.texts)]}:
            assert chat(self.server, question(number)).text == reference.text(number)


class Crash:
    """Brings the server to a moment at which it is to be killed; all requests run on `threads`."""

    def __init__(self, server: Server, chooser: random.Random, threads: ThreadPoolExecutor) -> None:
        self.server = server
        self.chooser = chooser
        self.threads = threads
        self.number = chooser.choice(OTHERS)
        self.request: Future[bool] | None = None

    def during_prefill(self) -> None:
        self._send(lambda: chat(self.server, question(self.number, LONG), max_tokens=1), 0.2)

    def during_generation(self) -> None:
        endless = {"max_tokens": 1000, "ignore_eos": True}
        self._send(lambda: chat(self.server, question(self.number), **endless), 0.4)

    def after_an_answer(self) -> None:
        """Its end is being captured, hashed and written."""
        chat(self.server, question(self.number))
        self._wait(0.02)

    def during_flush(self) -> None:
        chat(self.server, question(self.number))
        self._send(lambda: flush(self.server), 0.02)

    def while_starting(self) -> None:
        """Files are being indexed, or the model is being loaded."""
        self.server.kill()
        self.server.spawn()
        self._wait(0.4)

    def _send(self, request: Callable[[], object], longest_s: float) -> None:
        self.request = self.threads.submit(answered, request)
        self._wait(longest_s)

    def _wait(self, longest_s: float) -> None:
        time.sleep(self.chooser.uniform(0, longest_s))


MOMENTS = [
    Crash.during_prefill,
    Crash.during_generation,
    Crash.after_an_answer,
    Crash.during_flush,
    Crash.while_starting,
]


def answered(request: Callable[[], object]) -> bool:
    """Whether a request was answered before the server was killed."""
    try:
        request()
    except httpx.TransportError:
        return False
    return True


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("cold"), binary=STOCK_BINARY) as running:
        yield Reference(running)


def ask_and_check(server: Server, reference: Reference, told: Conversation, asked: str) -> Answer:
    """The next answer of a conversation, which must be right."""
    answer = told.ask(server, asked, atlas={})
    assert answer.text == cold_chat(reference.server, told.messages[:-1]).text
    return answer


def test_kill_9(seed: int, start_server: StartServer, tmp_path: Path, reference: Reference) -> None:
    chooser = random.Random(seed)
    server = start_server([*memory_options(tmp_path), *OPTIONS])
    lasting = [Conversation(number, SHORT) for number in range(LASTING)]
    flushed = [ask_and_check(server, reference, told, ASK_NAME) for told in lasting]
    flush(server)
    moments = MOMENTS * CRASHES_AT_EACH_MOMENT
    for number, moment in enumerate(chooser.sample(moments, len(moments))):
        lasting_number = number % LASTING
        told = lasting[lasting_number]
        loads = [Load(server, chooser) for _ in range(LOADS)]
        with ThreadPoolExecutor(LOADS + 1) as threads:
            running = [threads.submit(load.run) for load in loads]
            answer = ask_and_check(server, reference, told, ASK_NAME)
            assert answer.recalls(flushed[lasting_number])
            flush(server)
            crash = Crash(server, chooser, threads)
            moment(crash)
            server.kill()
        for each in running:
            each.result()

        server.start()
        # without waiting for the index
        for load in loads:
            load.check(reference)
        wait_for_memory(server)
        flushed[lasting_number] = ask_and_check(server, reference, told, ASK_CITY)
        assert flushed[lasting_number].recalls(answer)
        assert flushed[lasting_number].layer in (1, 2)
        again = chat(server, question(crash.number))
        assert again.text == reference.text(crash.number)
        if moment is Crash.during_flush and crash.request and crash.request.result():
            assert again.reused >= again.prompt - 1
        status = memory_status(server)
        assert (status["disk"]["problem"], status["damaged_files"], status["foreign_files"]) == (None, 0, 0)
    assert server.stop() == 0
    assert not list((tmp_path / "memory/tmp").iterdir())
