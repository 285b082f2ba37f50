"""Conversations of several turns, each an ATLAS session, or the same turns without a name on stock."""

import itertools
from collections.abc import Callable

from locust import task

from load.profiles.answers import Stream, UnexpectedAnswerError
from load.profiles.prompts import question, sentences, user_message
from load.profiles.user import LlamaUser

TURNS = 4, 8
# Long enough for restoring to pay off with the demo model.
FIRST_SENTENCES = 16, 24
# Reasons that are the server's choice, or that clients asked for too much at once.
NO_LOSS = ("below_break_even", "no_room")


class SessionUser(LlamaUser):
    """Goes on with a conversation for some turns, then begins another."""

    profile = "sessions"
    weight = 4

    def on_start(self) -> None:
        self._session_numbers = itertools.count()

    @task
    def converse(self) -> None:
        session = f"{self.name}-{next(self._session_numbers)}"
        text = f"{sentences(self.random, self.random.randint(*FIRST_SENTENCES))} {question(self.random)}"
        messages = [user_message(text)]
        before: int | None = None
        for turn in range(1, self.random.randint(*TURNS) + 1):
            if turn > 1:
                self.think()
            name = "session, first turn" if turn == 1 else "session, later turns"
            length = self.random.randint(8, 32)
            if self.atlas is None:
                answer = self.stream_chat(name, messages, length)
            else:
                answer = self.stream_chat(
                    name, messages, length, check=_check_growth(before), atlas={"session_id": session}
                )
                before = answer.last["atlas"]["reused_tokens"]
            messages += [
                {"role": "assistant", "content": answer.text},
                user_message(f"{sentences(self.random, 2)} {question(self.random)}"),
            ]


def _check_growth(before: int | None) -> Callable[[Stream], None]:
    """What each turn has to show: more reused tokens than the turn before, which reused `before`."""

    def check(answer: Stream) -> None:
        atlas = answer.last.get("atlas")
        if atlas is None:
            raise UnexpectedAnswerError("the answer has no atlas object")
        chosen = atlas["degraded"] or atlas["reason"] in NO_LOSS
        if before is not None and atlas["reused_tokens"] <= before and not chosen:
            raise UnexpectedAnswerError(f"no more tokens reused than the turn before: {atlas['reason']}")

    return check
