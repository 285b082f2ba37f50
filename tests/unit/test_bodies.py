"""What is wrong with a body, and where, whatever kind of type checks it."""

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from atlas_plugin import Request, ValidationError
from atlas_plugin.bodies import parse_body, value_must_be

Colour = Annotated[str, value_must_be("a colour", pattern="^(red|blue)$")]


class Part(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    main_colour: Colour
    numbers: Annotated[list[int], msgspec.Meta(max_length=2)] = []


@dataclass
class Machine:
    parts: list[Part]
    owner: str | None = None


class Order(TypedDict):
    machine: Machine
    extra: dict[str, int]


GOOD = {"machine": {"parts": [{"mainColour": "red"}], "other": 1}, "extra": {"a": 1}, "unknown": 1}


def order(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def with_part(**part: Any) -> dict[str, Any]:
    return order(machine={"parts": [{"mainColour": "red"}, {"mainColour": "blue", **part}]})


def parse(document: Any) -> Order:
    return parse_body(Request("POST", "/v1/atlas", body=msgspec.json.encode(document)), Order)


def test_a_body_that_is_right() -> None:
    assert parse(GOOD) == {"machine": Machine([Part("red")]), "extra": {"a": 1}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"extra": {}}, "'machine': it is missing"),
        (order(machine=None), "'machine': expected `object`, got `null`"),
        (order(machine={}), "'machine.parts': it is missing"),
        (order(machine={"parts": [1]}), "'machine.parts[0]': expected `object`, got `int`"),
        (order(machine={"parts": [], "owner": 1}), "'machine.owner': expected `str | null`, got `int`"),
        (with_part(mainColour="green"), "'machine.parts[1].mainColour': value must be a colour"),
        (order(machine={"parts": [{}]}), "'machine.parts[0].mainColour': value must be a colour"),
        (with_part(main_colour="red"), "'machine.parts[1].main_colour': there is no such field"),
        (with_part(numbers=[1, "2"]), "'machine.parts[1].numbers[1]': expected `int`, got `str`"),
        (with_part(numbers=[1, 2, 3]), "'machine.parts[1].numbers': expected `array` of length <= 2"),
        (order(extra={"a": "b"}), "'extra': expected `int`, got `str` - at `$[...]`"),
    ],
)
def test_the_place_is_named(document: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(document)
    assert caught.value.message == f"Validation error in field {message}"
