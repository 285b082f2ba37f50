"""The kinds of users, by the name of their profile; `mix` is all of them, by weight."""

from load.profiles.bad_requests import BadRequestUser
from load.profiles.chat import ChatUser
from load.profiles.memory import MemoryUser
from load.profiles.metrics import MetricsUser
from load.profiles.sessions import SessionUser
from load.profiles.shared_prompt import SharedPromptUser
from load.profiles.streaming import StreamingUser
from load.profiles.user import LlamaUser

MIX = "mix"
USERS: dict[str, type[LlamaUser]] = {
    user.profile: user
    for user in (
        ChatUser,
        StreamingUser,
        SharedPromptUser,
        SessionUser,
        MemoryUser,
        MetricsUser,
        BadRequestUser,
    )
}
