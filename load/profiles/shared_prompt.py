"""A long system prompt that all users share, as those of one application do: 750 tokens of the demo model."""

import random

from locust import task
from locust.env import Environment

from load.profiles.prompts import question, sentences, user_message
from load.profiles.user import LlamaUser

SENTENCES = 50


class SharedPromptUser(LlamaUser):
    """Asks short questions below the shared prompt, which only the seed decides."""

    profile = "shared-prompt"
    weight = 2

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        source = random.Random(self.options.seed)
        self._system = {"role": "system", "content": sentences(source, SENTENCES)}

    @task
    def ask(self) -> None:
        messages = [self._system, user_message(question(self.random))]
        self.stream_chat("shared prompt", messages, self.random.randint(8, 32))
