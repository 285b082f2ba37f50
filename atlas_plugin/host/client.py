"""The server's own routes, asked from inside the process."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from atlas_plugin import facts, json_text
from atlas_plugin.errors import AskError

Message = Mapping[str, Any]

_PATIENCE_S = 600.0


class HostClient(Protocol):
    """Asks the server itself: no HTTP, no API key, no rates, and no plugin's hook on the path of requests.

    At most `plugin_calls` of these are with the model at once, on all threads; others wait their turn. Any
    thread may call all of it, and is held until the answer comes, without the interpreter lock. A hook that
    asks the model needs a `deadline_ms` to match. `tenant` says whose memory is used: that of a request, for
    example; empty: what all see.

    All methods raise AskError for an answer of 400 or more: with 503 where it did not come in `timeout_s`,
    the model is not loaded yet, as in `startup`, or the server ends.
    """

    def call_route(
        self, method: str, path: str, body: bytes, tenant: str, timeout_s: float
    ) -> tuple[int, bytes]:
        """Status and body of a route's answer; what `ask` stands on."""

    def ask(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        method: str | None = None,
        tenant: str = "",
        timeout_s: float = _PATIENCE_S,
    ) -> Any:
        """What a route of the server's answers, parsed where it is JSON, else as text.

        `path` may have a query, but for llama-server's own routes. `method` is POST where there is a body,
        else GET. A route of /v1/atlas is not left when the time is up. Raises ValueError for a stream, which
        cannot be had.
        """
        if body is not None and body.get("stream"):
            raise ValueError("a plugin gets whole answers: leave `stream` out")
        if not 0.001 <= timeout_s <= facts.MAX_ASK_MS / 1000:
            raise ValueError(f"timeout_s must be from 0.001 to {facts.MAX_ASK_MS // 1000}, not {timeout_s!r}")
        chosen = method or ("GET" if body is None else "POST")
        data = b"" if body is None else json_text.encode_strictly(dict(body))
        status, answer = self.call_route(chosen, path, data, tenant, timeout_s)
        try:
            document = json_text.decode(answer)
        except ValueError:
            document = answer.decode(errors="replace")
        if status >= 400:
            raise AskError(path, status, _message_of(document))
        return document

    def complete(
        self,
        messages: str | Sequence[Message],
        *,
        tenant: str = "",
        timeout_s: float = _PATIENCE_S,
        **options: Any,
    ) -> dict[str, Any]:
        """The model's answer, as POST /v1/chat/completions has it; a text is one message of a user.

        `options` are other fields of its body, such as `max_tokens`, or `atlas={"session_id": …}`.
        """
        asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        answer: dict[str, Any] = self.ask(
            "/v1/chat/completions", {"messages": asked, **options}, tenant=tenant, timeout_s=timeout_s
        )
        return answer

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """The text's tokens; `parse_special`: names of special tokens in it count as these."""
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        tokens: list[int] = self.ask("/tokenize", body)["tokens"]
        return tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        text: str = self.ask("/detokenize", {"tokens": list(tokens)})["content"]
        return text

    @property
    def memory(self) -> "HostMemory":
        """Saved contexts and sessions."""
        return HostMemory(self)


class HostMemory:
    """Saved contexts, and sessions with what was said in them, by the routes /v1/atlas/memory/….

    All of it raises AskError, with 404 for what there is not.
    """

    def __init__(self, client: HostClient) -> None:
        self._client = client

    def save(self, context_id: str, state: Mapping[str, Any], *, tenant: str = "") -> None:
        """Save a context, a JSON object; it is durable on return."""
        self._post("save", tenant, context_id=context_id, state=dict(state))

    def load(self, context_id: str, *, tenant: str = "") -> dict[str, Any]:
        """A saved context's `state`, and of a session of that name `session` and `conversation_history`."""
        return self._post("load", tenant, context_id=context_id)

    def list(self, *, limit: int = 100, cursor: str | None = None, tenant: str = "") -> dict[str, Any]:
        """Saved contexts and sessions, a page: with `next_cursor`, where there is more."""
        fields = {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor}
        return self._post("list", tenant, **fields)

    def delete(self, context_id: str, *, tenant: str = "") -> int:
        """Delete a context, and the session of that name with its own state; the bytes that it took."""
        freed: int = self._post("delete", tenant, context_id=context_id)["freed_bytes"]
        return freed

    def pin(self, session_id: str, *, tenant: str = "") -> None:
        """Keep a session's state after all others."""
        self._post("pin", tenant, session_id=session_id)

    def unpin(self, session_id: str, *, tenant: str = "") -> None:
        """Take that back."""
        self._post("unpin", tenant, session_id=session_id)

    def flush(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until all state computed so far is durable."""
        return self._post("flush", "", timeout_s=timeout_s)

    def _post(self, what: str, tenant: str, **fields: Any) -> dict[str, Any]:
        data: dict[str, Any] = self._client.ask(f"/v1/atlas/memory/{what}", fields, tenant=tenant)["data"]
        return data


def _message_of(document: Any) -> str:
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else "it gave no reason"
