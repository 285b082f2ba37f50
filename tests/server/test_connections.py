"""Connections that clients keep open."""

import json
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.server.completions import BODIES, ROUTES
from tests.server.harness import Server


@pytest.mark.parametrize("path", ROUTES)
def test_outlive_a_stream(server: Server, path: str) -> None:
    # it neither looks whether the server closed its connection, nor tries again
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        for _ in range(5):
            connection.request("POST", path, json.dumps({**BODIES[path], "stream": True}))
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read().startswith((b"data: ", b"event: "))
