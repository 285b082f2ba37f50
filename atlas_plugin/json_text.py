"""JSON as ATLAS reads and writes it: UTF-8, and nothing that only Python knows. Any thread."""

from typing import Any

import msgspec


def decode(text: bytes | str) -> Any:
    """What the text stands for. Raises ValueError for all that is not JSON, or nested too deeply."""
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encode(value: Any) -> bytes:
    """The text; NaN and infinity become null. Raises TypeError for what JSON cannot hold."""
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        raise TypeError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:
        raise TypeError(str(error)) from None


def encode_strictly(value: Any) -> bytes:
    """The same, of what a plugin made: keys that are no strings, bytes and sets raise TypeError too.

    msgspec makes text of these, and who reads it would not get back what was written.
    """
    text = encode(value)
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for key in one:
                if not isinstance(key, str):
                    raise TypeError(f"the key {key!r} is not a string")
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        elif isinstance(one, bytes | bytearray | memoryview | set | frozenset):
            raise TypeError(f"Encoding objects of type {type(one).__name__} is unsupported")
    return text


def is_deeper(value: Any, limit: int) -> bool:
    """Whether more than so many arrays and objects are in each other."""
    if not isinstance(value, dict | list):
        return False
    if limit == 0:
        return True
    return any(is_deeper(each, limit - 1) for each in (value.values() if isinstance(value, dict) else value))
