"""Contexts that applications keep beside conversations: saved, loaded, listed and deleted."""

from typing import Any

import httpx
from locust import task

from load.profiles.answers import UnexpectedAnswerError, read_json
from load.profiles.prompts import sentences
from load.profiles.user import AtlasUser


class MemoryUser(AtlasUser):
    """Saves a context of its own, reads it back, and leaves nothing behind."""

    profile = "memory"

    @classmethod
    def obstacle(cls) -> str | None:
        if cls.atlas is not None and not cls.atlas["memory_persistence"]:
            return "it needs a memory, and the server has none: start it with --atlas-memory-path"
        return super().obstacle()

    @task
    def keep(self) -> None:
        state = {
            "conversation_history": [
                {"role": "user", "content": sentences(self.random, 10)}
                for _ in range(self.random.randint(1, 40))
            ],
            "user_preferences": {"seed": self.random.random()},
        }

        def read_saved(response: httpx.Response, sent: float) -> None:
            if read_json(response, sent)["data"]["state"] != state:
                raise UnexpectedAnswerError("the context loaded is not the one saved")

        own = {"context_id": self.name}
        self._operate("save", {**own, "state": state})
        self.think()
        self._operate("load", own, read_saved)
        self._operate("list", {"limit": 20})
        self._operate("delete", own)

    def _operate(self, operation: str, body: dict[str, Any], read: Any = read_json) -> None:
        self.call("POST", f"/v1/atlas/memory/{operation}", read, json=body)
