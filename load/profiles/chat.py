"""Plain chat: one question, one answer in one piece, no ATLAS."""

from locust import task

from load.profiles.answers import read_json
from load.profiles.prompts import question, sentences, user_message
from load.profiles.user import CHAT, LlamaUser, chat_body


class ChatUser(LlamaUser):
    """Asks questions that have nothing to do with each other."""

    profile = "chat"
    weight = 3

    @task
    def ask(self) -> None:
        text = f"{sentences(self.random, self.random.randint(1, 12))} {question(self.random)}"
        body = chat_body([user_message(text)], self.random.randint(8, 48))
        self.call("POST", CHAT, read_json, name="chat", json=body)
