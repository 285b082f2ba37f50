"""What a browser is sent: one document, which may run what is in it and nothing else."""

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256

from atlas_plugin import Response
from atlas_plugin.testing import Application, FakeHost


def digests(texts: list[str]) -> str:
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)


def test_the_page_is_whole_and_its_policy_fits(
    start: Callable[[FakeHost], Application], call: Callable[..., Response]
) -> None:
    answer = call(start(FakeHost()), "GET", "/v1/atlas/dashboard")
    assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
    html = answer.body.decode()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(scripts) == html.count("<script") == 4
    assert len(styles) == html.count("<style") == 1
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["style-src"]) == (digests(scripts), digests(styles))
    # Nothing is loaded from elsewhere, and nothing runs that the policy would have to allow besides.
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", html)
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:)|<[^>]* (?:on\w+|style|src)=", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)
