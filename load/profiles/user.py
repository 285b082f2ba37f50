"""What all users have in common: how they send, measure, wait and choose."""

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx
from locust import User
from locust.env import Environment
from locust.exception import RescheduleTask

from load.profiles.answers import (
    REFUSALS,
    Reader,
    Stream,
    T,
    UnexpectedAnswerError,
    read_stream,
    retry_after_s,
)

CHAT = "/v1/chat/completions"

# Types of entries in Locust's statistics, beside HTTP's methods and the statuses of refusals.
FIRST_TOKEN = "TTFT"
INTER_TOKEN = "ITL"
EXTRA_TYPES = {FIRST_TOKEN, INTER_TOKEN, *map(str, REFUSALS)}

# Of the connection and of readers; anything else is a mistake in a profile.
FAILURES = (httpx.HTTPError, UnexpectedAnswerError, LookupError, TypeError, ValueError)

TIMEOUT_S = 120.0
_TLS = httpx.create_ssl_context()


class LlamaUser(User):
    """A client of llama-server, with random choices of its own that --seed and its number decide."""

    abstract = True
    profile: ClassVar[str]
    # data of GET /v1/atlas/status; None: the server is stock
    atlas: ClassVar[dict[str, Any] | None] = None

    _numbers: ClassVar[defaultdict[type, Iterator[int]]] = defaultdict(itertools.count)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        assert environment.parsed_options is not None and self.host is not None
        self.options = options = environment.parsed_options
        self.name = f"load-{options.seed}-{self.profile}-{next(self._numbers[type(self)])}"
        self.random = random.Random(self.name)
        # A connection is used once: llama-server, stock too, closes some after a streamed answer while the
        # next request is on its way.
        self.client = httpx.Client(
            base_url=self.host,
            headers={"Authorization": f"Bearer {options.api_key}"} if options.api_key else {},
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=_TLS,
        )

    @classmethod
    def obstacle(cls) -> str | None:
        """Why the server cannot serve such users; None: it can."""
        return None

    def wait_time(self) -> float:
        """Seconds of thinking: exponentially distributed, as independent people's."""
        mean: float = self.options.think_time
        return self.random.expovariate(1 / mean) if mean else 0.0

    def think(self) -> None:
        """Wait as between two tasks."""
        time.sleep(self.wait_time())

    def on_stop(self) -> None:
        self.client.close()

    def call(self, method: str, path: str, read: Reader[T], *, name: str = "", **request: Any) -> T:
        """What `read` makes of the answer. `request` is httpx's; `name` stands in statistics for the path.

        A server that refuses for now is asked again after the time it names. Any other unexpected answer is
        a failure in the statistics and ends the task.
        """
        name = name or path
        while True:
            sent = time.perf_counter()
            refused_s, size = None, 0
            try:
                with self.client.stream(method, path, **request) as response:
                    refused_s = retry_after_s(response)
                    if refused_s is None:
                        answer = read(response, sent)
                    size = response.num_bytes_downloaded
            except FAILURES as error:
                self._record(method, name, sent, size, error)
                raise RescheduleTask from error
            if refused_s is None:
                self._record(method, name, sent, size)
                return answer
            self.add_to_statistics(str(response.status_code), name, (time.perf_counter() - sent) * 1e3)
            time.sleep(refused_s)

    def stream_chat(
        self,
        name: str,
        messages: list[dict[str, str]],
        max_tokens: int,
        *,
        check: Callable[[Stream], None] = lambda _: None,
        **fields: Any,
    ) -> Stream:
        """A streamed completion of exactly `max_tokens`; `check` raises UnexpectedAnswerError."""

        def read(response: httpx.Response, sent: float) -> Stream:
            stream = read_stream(response, sent)
            check(stream)
            return stream

        body = {**chat_body(messages, max_tokens), "stream": True, **fields}
        stream = self.call("POST", CHAT, read, name=name, json=body)
        if stream.first_token_ms is not None:
            self.add_to_statistics(FIRST_TOKEN, name, stream.first_token_ms)
        for gap in stream.gaps_ms:
            self.add_to_statistics(INTER_TOKEN, name, gap)
        return stream

    def add_to_statistics(self, kind: str, name: str, ms: float) -> None:
        """Add to an entry that is no request: an event for it would count in Locust's totals."""
        self.environment.stats.get(name, kind).log(ms, 0)

    def _record(self, method: str, name: str, sent: float, size: int, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=(time.perf_counter() - sent) * 1e3,
            response_length=size,
            exception=error,
            context={},
        )


class AtlasUser(LlamaUser):
    """A user of what only ATLAS has."""

    abstract = True

    @classmethod
    def obstacle(cls) -> str | None:
        return "it needs ATLAS, and the server is stock" if cls.atlas is None else None


def chat_body(messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
    """The body of a greedy completion that ends by its length, so that every server computes as much."""
    return {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
