"""Streamed answers, longer than those of the other profiles: what the gaps between tokens are measured by."""

from locust import task

from load.profiles.prompts import question, sentences, user_message
from load.profiles.user import LlamaUser


class StreamingUser(LlamaUser):
    """Asks short questions and reads long answers as they come."""

    profile = "streaming"
    weight = 3

    @task
    def ask(self) -> None:
        text = f"{sentences(self.random, self.random.randint(1, 6))} {question(self.random)}"
        self.stream_chat("stream", [user_message(text)], self.random.randint(32, 128))
