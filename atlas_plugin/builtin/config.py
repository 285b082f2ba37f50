"""GET and POST /v1/atlas/config."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from atlas_plugin.bodies import value_must_be
from atlas_plugin.errors import Forbidden, ValidationError
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.host import host_logging
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request, require_admin
from atlas_plugin.openapi import Success
from atlas_plugin.routing import Routes


class ConfigBody(Struct, forbid_unknown_fields=True, frozen=True):
    """New values by the names of settings: all are changed, or none."""

    settings: Annotated[
        dict[str, Any], value_must_be("a JSON object with at least one setting", min_length=1)
    ]


@dataclass(frozen=True)
class AllSettings:
    """Every setting: name, flag, env, type, value, default, origin, reload, help, and limits of numbers."""

    settings: list[dict[str, Any]]


@dataclass(frozen=True)
class Changed:
    """The settings that were changed, and their values now."""

    changed: Annotated[dict[str, Any], Meta(description="by name; secrets are replaced by ***")]


class ConfigPlugin:
    """Shows the settings in effect and where each came from; changes those that need no restart."""

    def __init__(self, services: Services) -> None:
        self._host = services.host
        self._plugins = services.plugins

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        path = "/v1/atlas/config"
        routes.get(
            path,
            guard=lambda request: require_admin(request, "see the settings"),
            summary="All settings and their origins",
            answer=Success[AllSettings],
            errors=(Forbidden,),
        )(self._show)
        routes.post(
            path,
            body=ConfigBody,
            guard=lambda request: require_admin(request, "change settings"),
            summary="Change settings without a restart, all or none",
            answer=Success[Changed],
            errors=(Forbidden,),
        )(self._change)

    def _show(self, request: Request) -> dict[str, Any]:
        return {"status": "success", "data": {"settings": self._host.settings().redacted()}}

    def _change(self, request: Request, body: ConfigBody) -> dict[str, Any]:
        change = self._host.change_settings(body.settings)
        if change.problems:
            raise _refusal(change.problems)
        host_logging.set_level(self._host)
        self._plugins.hooks.ask.reload(changed=change.changed)
        shown = {entry["name"]: entry["value"] for entry in self._host.settings().redacted()}
        return {"status": "success", "data": {"changed": {name: shown[name] for name in change.changed}}}


def _refusal(problems: Iterable[Mapping[str, str]]) -> ValidationError:
    (field, message), *others = ((f"settings.{one['field']}", one["message"]) for one in problems)
    return ValidationError("; ".join([message, *(f"field '{name}': {why}" for name, why in others)]), field)
