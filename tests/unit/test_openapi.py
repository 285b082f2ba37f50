"""The description of the routes: valid, complete, and made of what checks the bodies."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct
from openapi_spec_validator import OpenAPIV31SpecValidator

from atlas_plugin import NotFoundError, PluginError, Request, Response, Routes, ValidationError
from atlas_plugin.bodies import parse_body, value_must_be
from atlas_plugin.http import Headers
from atlas_plugin.openapi import COMPLETIONS
from atlas_plugin.testing import Application, FakeHost

Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]

PLUGIN = """
from typing import Annotated
from msgspec import Meta, Struct
from atlas_plugin import NotFoundError, hookimpl

class Vote(Struct, forbid_unknown_fields=True):
    stars: Annotated[int, Meta(ge=1, le=5)]

def refuse(request):
    if "x-no" in request.headers:
        raise NotFoundError("not for you")

@hookimpl
def register_routes(routes):
    @routes.post("/v1/atlas/x/vote/{name}", body=Vote, guard=refuse, summary="Vote", errors=[NotFoundError])
    def vote(request, body):
        return {"stars": body.stars}

    routes.get("/v1/atlas/x/files/{rest:path}", answer="text/event-stream")(lambda request: None)
    routes.delete("/v1/atlas/x/files/{rest:path}")(lambda request: None)
"""


class Item(Struct, forbid_unknown_fields=True):
    name: str
    count: Annotated[int, Meta(ge=1)] = 1


class Order(Struct, forbid_unknown_fields=True):
    items: list[Item]
    code: Annotated[str, value_must_be("four digits", pattern=r"^\d{4}$")] = "0000"


@pytest.fixture
def application(tmp_path: Path, start: Start) -> Application:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return start(FakeHost(memory_save_path=str(tmp_path / "memory"), plugins=[str(tmp_path / "mine.py")]))


@pytest.fixture
def document(application: Application, call: Call) -> Any:
    response = call(application, "GET", "/v1/atlas/openapi.json")
    assert response.status == 200
    return msgspec.json.decode(response.body)


def test_it_is_valid(document: Any) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_it_has_every_route(document: Any, application: Application) -> None:
    described = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    routes = {str(route).replace(":path}", "}") for route in application.plugins.router.routes}
    assert described == routes | {f"POST {path}" for path in ("/v1/atlas/memory/flush", *COMPLETIONS)}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert {"200", "401", "403", "429", "default"} <= operation["responses"].keys()
            assert operation.get("summary") or path.startswith("/v1/atlas/x/")


def test_routes_of_plugins(document: Any) -> None:
    vote = document["paths"]["/v1/atlas/x/vote/{name}"]["post"]
    assert (vote["summary"], vote["tags"]) == ("Vote", ["mine"])
    assert [parameter["name"] for parameter in vote["parameters"]] == ["name"]
    assert vote["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Vote"}}},
    }
    assert vote["responses"].keys() == {"200", "400", "401", "403", "404", "429", "default"}
    stars = document["components"]["schemas"]["Vote"]["properties"]["stars"]
    assert (stars["minimum"], stars["maximum"]) == (1, 5)
    files = document["paths"]["/v1/atlas/x/files/{rest}"]
    assert files["get"]["responses"]["200"]["content"] == {"text/event-stream": {}}
    assert files.keys() == {"get", "delete"}


def test_what_the_server_answers_itself(document: Any) -> None:
    flush = document["components"]["schemas"]["FlushBody"]["properties"]["timeout_s"]
    assert (flush["exclusiveMinimum"], flush["maximum"]) == (0, 3600)
    chat = document["paths"]["/v1/chat/completions"]["post"]
    schema = chat["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"] == {"atlas": {"$ref": "#/components/schemas/AtlasRequest"}}
    assert document["components"]["schemas"]["AtlasRequest"] == FakeHost().request_schema()["request"]
    assert chat["responses"].keys() == {"200", "400", "401", "403", "429", "503", "default"}
    assert document["security"] == [{}, {"bearer": []}, {"header": []}]


def test_a_plugin_gets_the_checked_body(application: Application, call: Call) -> None:
    path = "/v1/atlas/x/vote/ada"
    assert call(application, "POST", path, body=b'{"stars": 3}').body == b'{"stars":3}'
    for body, message in (
        (b"", "'stars': it is missing"),
        (b'{"stars": 6}', "'stars': expected `int` <= 5"),
        (b'{"stars": 3, "name": 1}', "'name': there is no such field; the fields are stars"),
    ):
        response = call(application, "POST", path, body=body)
        assert response.status == 400
        assert (
            f"Validation error in field {message}" in msgspec.json.decode(response.body)["error"]["message"]
        )
    refused = call(application, "POST", path, body=b"{", headers=Headers([("x-no", "1")]))
    assert refused.status == NotFoundError.status, "the guard comes before the body is parsed"


def test_the_example_in_the_documentation(tmp_path: Path, start: Start, call: Call) -> None:
    page = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    [code] = re.findall(r"## Bodies that are checked.*?^```python\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "vote.py").write_text(code)
    application = start(FakeHost(plugins=[str(tmp_path / "vote.py")]))
    path = "/v1/atlas/x/vote"
    assert call(application, "POST", path, body=b'{"session_id": "a"}').body == b'{"stars":5}'
    assert call(application, "POST", path, body=b'{"session_id": "a", "stars": 0}').status == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"items": [{"name": "a"}, {"name": 1}]}', "'items[1].name': expected `str`, got `int`"),
        (b'{"items": [{}]}', "'items[0].name': it is missing"),
        (b'{"items": [{"name": "a", "nam\\n": 1}]}', "'items[0].nam\n': there is no such field"),
        (b'{"items": [], "code": "1"}', "'code': value must be four digits"),
        (b'{"items": [], "code": null}', "'code': value must be four digits"),
        (b"[]", "'body': must be a JSON object"),
        (b"[" * 5000, "'body': not valid JSON: "),
        (b'{"a":' * 5000, "'body': not valid JSON: "),
        (b'\xff{"items": []}', "'body': not valid JSON: "),
    ],
)
def test_the_wrong_field_is_named(body: bytes, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_body(Request("POST", "/", body=body), Order)
    assert caught.value.message.startswith(f"Validation error in field {message}")


def test_any_type_that_msgspec_knows() -> None:
    assert parse_body(Request("POST", "/", body=b'{"a": 1}'), dict[str, int]) == {"a": 1}
    with pytest.raises(ValidationError, match="expected `int`, got `str`"):
        parse_body(Request("POST", "/", body=b'{"a": "b"}'), dict[str, int])


def test_declarations_that_cannot_work() -> None:
    class Odd:
        pass

    def handler(request: Request, body: Any) -> None: ...

    with pytest.raises(PluginError, match="only POST has a body"):
        Routes("mine").add("GET", "/v1/atlas/x/a", handler, body=Order)
    with pytest.raises(PluginError, match="has no JSON schema"):
        Routes("mine").add("POST", "/v1/atlas/x/a", handler, body=Odd)
    with pytest.raises(PluginError, match="has no JSON schema"):
        Routes("mine").add("POST", "/v1/atlas/x/a", handler, answer=Odd)
