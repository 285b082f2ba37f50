"""TLS to a RESP server: whom the tier trusts, and what it says where it does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores import Certificates, RespServer
from tests.tiers.driver import problem_of, tier_of


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def server(tmp_path: Path, certificates: Certificates) -> Iterator[RespServer]:
    with RespServer(tmp_path, tls=certificates) as one:
        yield one


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_the_host(server: RespServer, certificates: Certificates, host: str) -> None:
    with tier_of(f"rediss://{host}:{server.port}?ca={certificates.authority}") as tier:
        assert tier.ping().failure is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "certificate"),  # an authority that the system does not know
        ("ca={ca}&name=other.example", "mismatch"),
        ("ca={ca}&name=10.0.0.1", "mismatch"),
        ("ca={other}", "certificate"),
    ],
)
def test_a_certificate_that_is_not_trusted(
    server: RespServer, certificates: Certificates, tmp_path: Path, options: str, reason: str
) -> None:
    other = Certificates(tmp_path / "other").authority
    options = options.format(ca=certificates.authority, other=other)
    with tier_of(f"valkeys://{server.address}?{options}") as tier:
        answer = tier.ping()
        assert answer.failure == "denied"
        assert "its certificate is not accepted" in answer.text
        assert reason in answer.text


def test_trusts_anybody_where_told_to(server: RespServer) -> None:
    with tier_of(f"valkeys://{server.address}?verify=no") as tier:
        assert tier.put("atlas:a", 5 << 20).failure is None
        assert tier.get("atlas:a").sizes == [5 << 20]


def test_shows_its_own_certificate(tmp_path: Path, certificates: Certificates) -> None:
    with RespServer(tmp_path, tls=certificates, client_certificate=True) as server:
        own = f"cert={certificates.certificate}&key={certificates.key}"
        with tier_of(f"valkeys://{server.address}?ca={certificates.authority}&{own}") as tier:
            assert tier.ping().failure is None
        with tier_of(f"valkeys://{server.address}?ca={certificates.authority}") as tier:
            assert tier.ping().failure == "unreachable"


def test_one_side_without_tls(server: RespServer, tmp_path: Path) -> None:
    with tier_of(server.url) as tier:
        assert tier.ping(ms=2000).failure in ("unreachable", "broken")
    (tmp_path / "plain").mkdir()
    with RespServer(tmp_path / "plain") as plain, tier_of(f"valkeys://{plain.address}?verify=no") as tier:
        answer = tier.ping(ms=2000)
        assert answer.failure in ("unreachable", "late")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("ca=/nowhere/ca.crt", "'ca' names no readable file of certificates: '/nowhere/ca.crt'"),
        ("cert=/nowhere/own.crt&key=/nowhere/own.key", "'cert' names no readable certificate"),
        ("cert=/nowhere/own.crt", "'cert' and 'key' go together"),
        ("verify=perhaps", "'verify' is yes or no"),
    ],
)
def test_files_that_cannot_be_used(options: str, fault: str) -> None:
    assert fault in problem_of(f"valkeys://store?{options}")


def test_a_key_of_another_certificate(certificates: Certificates, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other").key
    fault = problem_of(f"valkeys://store?cert={certificates.certificate}&key={other}")
    assert "'key' names no readable key of that certificate" in fault
