"""S3: every tier's cases on SeaweedFS, and what it says where something is wrong."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from tests.faulty_network import Fault, FaultyProxy
from tests.stores import S3_KEYS, SeaweedS3, port_that_nobody_listens_on
from tests.tiers.driver import is_in_time, problem_of, tier_of
from tests.tiers.test_conformance import _cases, run

MIB = 1 << 20
# A proxy of the environment would be asked for the server on this machine.
ENVIRONMENT = {**S3_KEYS, "http_proxy": "", "HTTP_PROXY": "", "ALL_PROXY": "", "all_proxy": ""}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedS3]:
    with SeaweedS3(tmp_path_factory.mktemp("s3")) as server:
        with tier_of(server.url, ENVIRONMENT) as tier:
            assert tier.put("atlas:first").failure is None  # makes the bucket
        yield server


@pytest.mark.parametrize("case", _cases())
def test_case(case: str, store: SeaweedS3, tmp_path: Path) -> None:
    run(case, tmp_path, store.url.replace("/states", f"/{case}"), ENVIRONMENT)


def test_prefixes_are_apart(store: SeaweedS3) -> None:
    without = store.url.replace("/states", "")
    with tier_of(store.url, ENVIRONMENT) as one, tier_of(without, ENVIRONMENT) as other:
        assert one.put("atlas:mine").failure is None
        assert other.probe("atlas:mine").found == [False]


def test_wrong_keys(store: SeaweedS3) -> None:
    for name, code in [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
    ]:
        with tier_of(store.url, {**ENVIRONMENT, name: "some-secret-that-is-wrong"}) as tier:
            for answer in (tier.get("atlas:a"), tier.put("atlas:a"), tier.ping()):
                assert (answer.failure, code in answer.text) == ("denied", True), answer.text
                assert "secret-that-is-wrong" not in answer.text


def test_no_such_bucket(store: SeaweedS3) -> None:
    with tier_of(store.url.replace(SeaweedS3.BUCKET, "no-such-bucket"), ENVIRONMENT) as tier:
        answer = tier.get("atlas:a")
        assert (answer.failure, "make the bucket" in answer.text) == ("denied", True), answer.text


def test_keys_of_a_file(store: SeaweedS3, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    lines = "\n".join(f"{name.lower()} = {value}" for name, value in S3_KEYS.items())
    file.write_text(f"[default]\n{lines}\n[other]\naws_access_key_id = wrong\n", encoding="utf-8")
    without = dict.fromkeys(ENVIRONMENT, "")
    with tier_of(f"{store.url}&keys={file}", without) as tier:
        assert tier.put("atlas:file").failure is None
    file.write_text("[default]\n", encoding="utf-8")
    assert "has to have lines" in problem_of(f"{store.url}&keys={file}", without)
    assert "no readable file" in problem_of(f"{store.url}&keys={file}.gone", without)
    assert "set AWS_ACCESS_KEY_ID" in problem_of(store.url, without)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("endpoint=store.example", "'endpoint' is a URL"),
        ("endpoint=https://", "'endpoint' is a URL"),
        ("endpoint=https://user:s3cret@store", "'endpoint' is a URL"),
        ("region=eu/1", "'region' is a name"),
    ],
)
def test_urls_that_are_refused(options: str, fault: str) -> None:
    text = problem_of(f"s3://bucket?{options}", ENVIRONMENT)
    assert fault in text
    assert "s3cret" not in text
    assert "a prefix is made of" in problem_of("s3://bucket/a//b", ENVIRONMENT)
    assert "a prefix is made of" in problem_of("s3://bucket/../b", ENVIRONMENT)


def test_stopped(store: SeaweedS3) -> None:
    with tier_of(store.url, ENVIRONMENT) as tier:
        assert tier.put("atlas:a", MIB).failure is None
        store.stop()
        for ms in (20, 300):
            for answer in (tier.get("atlas:a", "atlas:b", ms=ms), tier.put("atlas:x", MIB, ms=ms)):
                assert (answer.failure, list(answer.sizes)) == ("late", []), answer.text
                assert is_in_time(answer, ms)
        store.go_on()
        got = tier.get("atlas:a")
        assert (got.failure, list(got.sizes), got.wrong) == (None, [MIB], 0)


def test_nobody_listens() -> None:
    with port_that_nobody_listens_on() as held:
        url = f"s3://bucket?endpoint=http://127.0.0.1:{held.getsockname()[1]}"
        with tier_of(url, ENVIRONMENT) as tier:
            answer = tier.ping()
            assert (answer.failure, "s3://bucket" in answer.text) == ("unreachable", True)


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault(passed=0, cut=True), "unreachable"),
        (Fault(passed=MIB // 2, cut=True), "unreachable"),
        (Fault(passed=MIB // 2, hold=True), "late"),
        (Fault(passed=10, trickle_s=0.1), "late"),
        (Fault(passed=0, flip=True), "broken"),
    ],
    ids=str,
)
def test_replies_are_spoiled(store: SeaweedS3, fault: Fault, failure: str) -> None:
    with tier_of(store.url, ENVIRONMENT) as tier:
        assert tier.put("atlas:a", MIB).failure is None
    # The host that is asked is signed, and the proxy leaves it as it is.
    with FaultyProxy(store.port, fault) as proxy:
        url = store.url.replace(f":{store.port}", f":{proxy.port}")
        with tier_of(url, ENVIRONMENT) as tier:
            answer = tier.get("atlas:a", ms=1000)
            assert (answer.failure, list(answer.sizes)) == (failure, []), answer.text
            assert is_in_time(answer, 1000)
            proxy.fault = None
            got = tier.get("atlas:a")
            assert (got.failure, list(got.sizes), got.wrong) == (None, [MIB], 0), got.text


class Answers(BaseHTTPRequestHandler):
    """Answers every GET with `status` and `headers`."""

    status: ClassVar[int] = 200
    headers_sent: ClassVar[dict[str, str]] = {}
    body: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        """Whatever is asked."""
        self.send_response(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def answers() -> Iterator[tuple[str, type[Answers]]]:
    class Own(Answers):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"s3://bucket?endpoint=http://127.0.0.1:{server.server_port}", Own
        server.shutdown()
        thread.join()


def test_a_length_beyond_all(answers: tuple[str, type[Answers]]) -> None:
    url, server = answers
    server.headers_sent = {"Content-Length": str(1 << 40)}
    with tier_of(url, ENVIRONMENT) as tier:
        before = tier.resident_bytes
        answer = tier.get("atlas:a")
        assert (answer.failure, "more than" in answer.text) == ("broken", True)
        assert tier.resident_bytes - before < 32 * MIB


def test_a_value_without_a_length(answers: tuple[str, type[Answers]]) -> None:
    url, server = answers
    server.headers_sent = {"Connection": "close"}
    server.body = b"x" * (3 * MIB)
    with tier_of(url, ENVIRONMENT) as tier:
        assert tier.get("atlas:a").sizes == [3 * MIB]


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (403, "AccessDenied", "denied"),
        (400, "AuthorizationHeaderMalformed", "broken"),
        (503, "SlowDown", "unreachable"),
        (429, "", "unreachable"),
        (500, "InternalError", "unreachable"),
        (507, "XMinioStorageFull", "full"),
        (302, "", "broken"),
    ],
)
def test_errors_have_names(answers: tuple[str, type[Answers]], status: int, code: str, failure: str) -> None:
    url, server = answers
    server.status = status
    server.headers_sent = {"Connection": "close", "Location": "http://127.0.0.1:1/"}
    server.body = f"<Error><Code>{code}</Code><Message>A \x1b message</Message></Error>".encode()
    with tier_of(url, ENVIRONMENT) as tier:
        answer = tier.get("atlas:a")
        assert (answer.failure, str(status) in answer.text, code in answer.text) == (failure, True, True)
        assert "\x1b" not in answer.text
