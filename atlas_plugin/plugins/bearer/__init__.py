"""Lets in who has a JSON Web Token of an issuer, with scopes for routes, and quotas for each day."""

import logging
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from atlas_plugin.completions import Caller, CompletionRequest, Identity, Reject
from atlas_plugin.errors import AuthenticationError, NotFoundError, PluginError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import Host
from atlas_plugin.http import Headers, Request
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.plugins._callers import presented_key
from atlas_plugin.plugins.bearer.config import Config
from atlas_plugin.plugins.bearer.quotas import Quotas, Used
from atlas_plugin.routing import Routes
from atlas_plugin.storage import private_sqlite

if TYPE_CHECKING:
    from atlas_plugin.plugins.bearer.tokens import Bearer

log = logging.getLogger("atlas")

_NAME = "bearer"
# A machine that is busy for a moment is no reason to refuse.
_DEADLINE_MS = 5_000
_COUNTING_MS = 10_000


class Plugin:
    """JWT and OpenID Connect: who is let in, what for, and how much of it."""

    def __init__(self) -> None:
        self._quotas: Quotas | None = None
        self._results: Counter[str] = Counter()
        self._lock = threading.Lock()

    @hookimpl
    def configure(self, config: Config) -> None:
        try:
            # Imported here, so that the message says what to do.
            from atlas_plugin.plugins.bearer import keys, tokens
        except ImportError as error:
            raise PluginError(
                _NAME,
                f"{error}; install the extra 'bearer' into {sys.prefix}: "
                "bin/python -m pip install -e '.[bearer]', in the source tree of ATLAS",
            ) from None
        self._config = config
        self._tokens = tokens
        try:
            self._source = keys.source_of(config)
        except (OSError, ValueError) as error:
            raise PluginError(_NAME, f"wrong configuration: {config.source}: {error}") from None
        self._verifier = tokens.Verifier(config, self._source)

    @hookimpl
    def startup(self, host: Host) -> None:
        if self._config.has_quotas:
            memory_path = host.settings().text("memory_save_path")
            path = private_sqlite.place(self._config.quota_file, memory_path, _NAME)
            if path is None:
                raise PluginError(_NAME, "wrong configuration: quotas need a quota_file, or a memory path")
            try:
                self._quotas = Quotas(path)
            except (OSError, sqlite3.Error) as error:
                raise PluginError(_NAME, f"quota_file: {path} cannot be used: {error}") from None
        self._source.start()

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get("/v1/atlas/x/bearer/usage", summary="What the token's subject has used today")(self._usage)

    @hookimpl(deadline_ms=_DEADLINE_MS)
    def authenticate(self, caller: Caller) -> Identity | Reject | None:
        if self._config.also_api_keys and not self._tokens.is_token(caller.key):
            return None
        if not caller.key:
            return self._refuse(401, "none", "send a token: Authorization: Bearer …")
        try:
            bearer = self._verifier.verify(caller.key)
        except self._tokens.RefusedError as error:
            return self._refuse(error.status, error.reason, error.message)
        if missing := self._missing(caller, bearer):
            return self._refuse(403, "scope", missing)
        self._count("accepted")
        is_admin = bool(self._config.admin_scope) and self._config.admin_scope in bearer.scopes
        return Identity(bearer.name, is_admin=is_admin)

    @hookimpl(deadline_ms=_DEADLINE_MS, fails="closed", priority=-1000)
    def on_request(self, request: CompletionRequest) -> Reject | None:
        try:
            bearer = self._bearer_of(request.headers)
        except self._tokens.RefusedError as error:
            # Between the two hooks it may have expired.
            return self._refuse(error.status, error.reason, error.message)
        if bearer is None:
            return None
        request.state[_NAME] = bearer.name
        if self._quotas is not None and (problem := self._used_up(self._quotas.used(bearer.name))):
            message = f"{problem}; it starts anew at {self._quotas.starts_anew()}"
            return self._refuse(429, "quota", message, {"Retry-After": str(self._quotas.seconds_left())})
        return None

    @hookimpl(deadline_ms=_COUNTING_MS)
    def on_finished(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        self._add(request, record)

    @hookimpl(deadline_ms=_COUNTING_MS)
    def on_failed(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        # Who leaves before the end has used the model, too.
        if record["outcome"] != "refused":
            self._add(request, record)

    @hookimpl
    def report_status(self) -> StatusReport:
        keys = self._source.keys
        problem = self._source.problem
        return StatusReport(
            data={_NAME: {"keys": 0 if keys is None else len(keys), "key_fetches": self._source.fetches}},
            problems=[f"the issuer's keys cannot be fetched: {problem}"] if problem else (),
        )

    @hookimpl
    def report_metrics(self) -> list[Family]:
        with self._lock:
            samples = [Sample({"result": result}, count) for result, count in sorted(self._results.items())]
        text = "Tokens that were looked at, by what came of them."
        return [Family("atlas_bearer_tokens_total", "counter", text, samples)] if samples else []

    @hookimpl
    def shutdown(self) -> None:
        if hasattr(self, "_source"):
            self._source.stop()
        if self._quotas is not None:
            self._quotas.close()

    def _missing(self, caller: Caller, bearer: "Bearer") -> str:
        """What the token lacks for the route; empty: nothing."""
        if not self._config.scopes:
            return ""
        method = "GET" if caller.method == "HEAD" else caller.method
        fitting = [
            scopes for pattern, scopes in self._config.scopes.items() if _fits(pattern, method, caller.path)
        ]
        if not fitting:
            return "no scope is for this route"
        needed = {scope for scopes in fitting for scope in scopes}
        lacking = sorted(needed - bearer.scopes)
        return f"the token lacks the scope {' '.join(lacking)}" if lacking else ""

    def _bearer_of(self, headers: Headers) -> "Bearer | None":
        """Whose token it is, which `authenticate` let in; None: an API key's."""
        key = presented_key(headers)
        if self._config.also_api_keys and not self._tokens.is_token(key):
            return None
        return self._verifier.verify(key)

    def _used_up(self, used: Used) -> str:
        most_requests, most_tokens = self._config.requests_per_day, self._config.tokens_per_day
        if most_requests and used.requests >= most_requests:
            return f"the quota of {most_requests} requests a day is used up"
        if most_tokens and used.tokens >= most_tokens:
            return f"the quota of {most_tokens} tokens a day is used up"
        return ""

    def _add(self, request: CompletionRequest, record: dict[str, Any]) -> None:
        if self._quotas is not None and (name := request.state.get(_NAME)):
            tokens = record["tokens"]
            self._quotas.add(name, 1, tokens["prompt"] + tokens["answer"])

    def _usage(self, request: Request) -> dict[str, Any]:
        if self._quotas is None:
            raise NotFoundError("there are no quotas")
        try:
            bearer = self._bearer_of(request.headers)
        except self._tokens.RefusedError as error:
            raise AuthenticationError(error.message) from None
        if bearer is None:
            raise NotFoundError("API keys have no quotas")
        used = self._quotas.used(bearer.name)
        return {
            "name": bearer.name,
            "requests": used.requests,
            "requests_per_day": self._config.requests_per_day,
            "tokens": used.tokens,
            "tokens_per_day": self._config.tokens_per_day,
            "starts_anew": self._quotas.starts_anew(),
        }

    def _refuse(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Reject:
        self._count(reason)
        if status == 401:
            headers = {"WWW-Authenticate": 'Bearer error="invalid_token"', **headers}
        return Reject(status, message, headers)

    def _count(self, result: str) -> None:
        with self._lock:
            self._results[result] += 1


def _fits(pattern: str, method: str, path: str) -> bool:
    of_method, _, of_path = pattern.rpartition(" ")
    return of_method in ("", "*", method) and fnmatchcase(path, of_path)
