"""What goes wrong with a RESP server: a call ends in time, its error says why, and the next call is right."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faulty_network import FakeRespServer, Fault, FaultyProxy
from tests.stores import ACL, PASSWORD, Certificates, RespServer, port_that_nobody_listens_on
from tests.tiers.driver import Tier, is_in_time, problem_of, tier_of

MIB = 1 << 20
COMMANDS = {"auth", "client|setname", "select", "ping", "exists", "get", "set", "expire", "del"}


@contextmanager
def _server(directory: Path, *, tls: bool) -> Iterator[tuple[RespServer, str]]:
    if not tls:
        with RespServer(directory) as server:
            yield server, server.url
        return
    certificates = Certificates(directory / "certificates")
    with RespServer(directory, tls=certificates) as server:
        yield server, f"valkeys://{server.address}?ca={certificates.authority}"


def fill(tier: Tier, *keys: str, n_bytes: int = MIB) -> None:
    for key in keys:
        assert tier.put(key, n_bytes).failure is None


def check_whole(tier: Tier, *keys: str, n_bytes: int = MIB) -> None:
    """All values come, and each is its key's: no reply belonged to an earlier call."""
    got = tier.get(*keys)
    assert (got.failure, got.sizes, got.wrong) == (None, [n_bytes] * len(keys), 0), got.text
    assert tier.probe(*keys, "atlas:never").found == [*[True] * len(keys), False]


def test_sends_no_other_commands(tmp_path: Path) -> None:
    with RespServer(tmp_path, password=PASSWORD) as server:
        before = set(server.client().info("commandstats"))
        with tier_of(f"valkey://default:s3cret%20word%2F%40%3A@{server.address}/1") as tier:
            fill(tier, "atlas:a")
            assert tier.probe("atlas:a").found == [True]
            assert tier.get("atlas:a").sizes == [MIB]
            assert tier.keep("atlas:a").found == [True]
            assert tier.remove("atlas:a").failure is None
            assert tier.ping().failure is None
            assert "atlas" in [one["name"] for one in server.client().client_list()]
        sent = {name.removeprefix("cmdstat_") for name in server.client().info("commandstats")}
        own = {"info", "client|setinfo", "client|list", "hello"}
        own |= {name.removeprefix("cmdstat_") for name in before}
        assert sent - own <= COMMANDS
        assert COMMANDS - own <= sent


def test_always_sets_when_a_value_goes(tmp_path: Path) -> None:
    with RespServer(tmp_path) as server, tier_of(server.url) as tier:
        assert tier.put("atlas:a", ttl=77).failure is None
        assert 0 < server.command("TTL", "atlas:a") <= 77
        assert tier.put("atlas:b", ttl=0).failure is None
        assert server.command("TTL", "atlas:b") <= 1
        assert tier.keep("atlas:a", ttl=777).failure is None
        assert 77 < server.command("TTL", "atlas:a") <= 777


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_stopped(tmp_path: Path, *, tls: bool) -> None:
    keys = [f"atlas:{i}" for i in range(10)]
    with _server(tmp_path, tls=tls) as (server, url), tier_of(url) as tier:
        fill(tier, *keys)
        check_whole(tier, *keys)
        server.stop()
        for ms in (1, 50, 300):
            reads = (tier.get(*keys, ms=ms), tier.probe(*keys, ms=ms))
            for answer in (*reads, tier.put("atlas:x", MIB * 32, ms=ms)):
                assert (answer.failure, list(answer.sizes)) == ("late", [])
                assert "did not answer in time" in answer.text
                assert is_in_time(answer, ms)
            assert tier.keep(*keys, ms=ms).failure == "late"
            assert tier.remove("atlas:y", ms=ms).failure == "late"
            assert tier.ping(ms=ms).failure == "late"
        server.go_on()
        check_whole(tier, *keys)
        fill(tier, "atlas:x", n_bytes=32 * MIB)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_killed_and_started_empty(tmp_path: Path, *, tls: bool) -> None:
    with _server(tmp_path, tls=tls) as (server, url), tier_of(url) as tier:
        fill(tier, "atlas:a")
        check_whole(tier, "atlas:a")
        server.kill()
        reads = (tier.get("atlas:a"), tier.probe("atlas:a"), tier.ping())
        for answer in (*reads, tier.put("atlas:a", MIB * 32)):
            assert answer.failure == "unreachable"
            assert url.partition("?")[0] in answer.text
            assert "Is it running" in answer.text
        server.start()
        assert tier.get("atlas:a").sizes == []
        fill(tier, "atlas:a")
        check_whole(tier, "atlas:a")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_killed_while_it_is_written_to(tmp_path: Path, *, tls: bool) -> None:
    """The process outlives it, whatever SIGPIPE does to others."""
    with _server(tmp_path, tls=tls) as (server, url), tier_of(url) as tier:
        fill(tier, "atlas:a")
        server.stop()  # so that the value waits to be sent
        tier.send("put", 30_000, 600, "atlas:b", 200 * MIB)
        server.kill()
        assert tier.answer().failure == "unreachable"
        server.start()
        fill(tier, "atlas:a")
        check_whole(tier, "atlas:a")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_are_used_again(tmp_path: Path, *, tls: bool) -> None:
    def n_connections() -> int:
        return int(server.client().info("stats")["total_connections_received"])

    with _server(tmp_path, tls=tls) as (server, url), tier_of(url) as tier:
        keys = [f"atlas:{i}" for i in range(8)]
        fill(tier, *keys)
        check_whole(tier, *keys)
        before = n_connections()
        for _ in range(5):
            check_whole(tier, *keys)
            fill(tier, *keys)
            assert tier.get(keys[0], "atlas:never").sizes == [MIB]
            assert all(tier.keep(*keys).found)
            assert tier.ping().failure is None
        assert n_connections() - before == 1  # that asked


def test_idle_connections_that_were_closed_are_no_failure(tmp_path: Path) -> None:
    with RespServer(tmp_path) as server, tier_of(server.url) as tier:
        keys = [f"atlas:{i}" for i in range(8)]
        fill(tier, *keys)
        check_whole(tier, *keys)
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        check_whole(tier, *keys)
        fill(tier, *keys)


def test_full(tmp_path: Path) -> None:
    options = ["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]
    with RespServer(tmp_path, options=options) as server, tier_of(server.url) as tier:
        fill(tier, "atlas:a")
        for n_bytes in (5 * MIB, 5 * MIB, 5 * MIB):
            answer = tier.put("atlas:large", n_bytes)
        answer = tier.put("atlas:larger", 5 * MIB)
        assert answer.failure == "full"
        assert "maxmemory" in answer.text
        check_whole(tier, "atlas:a")
        assert tier.remove("atlas:large").failure is None
        fill(tier, "atlas:b")


def test_password(tmp_path: Path) -> None:
    with RespServer(tmp_path, password=PASSWORD) as server:
        with tier_of(f"valkey://:secret-that-is-wrong@{server.address}") as tier:
            answer = tier.ping()
            assert (answer.failure, "WRONGPASS" in answer.text) == ("denied", True)
            assert "secret" not in answer.text + tier.address
        with tier_of(server.url) as tier:
            answer = tier.get("atlas:a")
            assert (answer.failure, "NOAUTH" in answer.text) == ("denied", True)
            assert "valkey://USER:PASSWORD@HOST" in answer.text
    with RespServer(tmp_path) as server, tier_of(f"valkey://:needless@{server.address}") as tier:
        answer = tier.ping()
        assert (answer.failure, "needless" in answer.text) == ("denied", False)


def test_rights_that_lack(tmp_path: Path) -> None:
    with RespServer(tmp_path) as server:
        server.command("ACL", "SETUSER", "ada", "on", ">word", "~atlas:*", "-@all", "+get", "+exists")
        with tier_of(f"valkey://ada:word@{server.address}") as tier:
            answer = tier.put("atlas:a")
            assert (answer.failure, "NOPERM" in answer.text) == ("denied", True)
            assert all(one.lstrip("+").partition("|")[0].upper() in answer.text for one in ACL.split()[2:])
            assert tier.probe("atlas:a").found == [False]
            assert tier.probe("other:a").failure == "denied"


def test_replica(tmp_path: Path) -> None:
    with RespServer(tmp_path) as primary:
        (tmp_path / "replica").mkdir()
        options: list[str | int] = ["--replicaof", "127.0.0.1", primary.port]
        with RespServer(tmp_path / "replica", options=options) as replica, tier_of(replica.url) as tier:
            replica.wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up")
            answer = tier.put("atlas:a")
            assert (answer.failure, "name the primary" in answer.text) == ("denied", True)
            assert tier.probe("atlas:a").found == [False]


def test_nobody_listens() -> None:
    with port_that_nobody_listens_on() as held:
        with tier_of(f"valkey://127.0.0.1:{held.getsockname()[1]}") as tier:
            answer = tier.ping()
        assert (answer.failure, "refused" in answer.text) == ("unreachable", True)


def test_host_that_answers_nothing() -> None:
    """The kernel drops what does not fit into a queue of connections that nobody accepts."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        with tier_of(f"valkey://127.0.0.1:{address[1]}") as tier:
            answer = tier.ping()
            assert answer.failure == "unreachable"
            assert is_in_time(answer, 250)
            assert tier.ping(ms=20).failure == "late"
        for one in waiting:
            one.close()


def test_name_without_an_address() -> None:
    with tier_of("valkey://no-such-host.invalid") as tier:
        answer = tier.ping(ms=2000)
        assert answer.failure in ("unreachable", "late")
        assert is_in_time(answer, 2000)
        assert "its name" in answer.text


def test_probes_are_one_write() -> None:
    seen: list[bytes] = []

    def answer(words: list[bytes]) -> bytes:
        seen.append(words[1])
        return b":1\r\n" * 50 if len(seen) == 50 else b""

    with FakeRespServer(answer) as server, tier_of(server.url) as tier:
        assert tier.probe(*(f"atlas:{i}" for i in range(50))).found == [True] * 50


def test_few_values_are_under_way() -> None:
    with FakeRespServer(lambda _: b"") as server, tier_of(f"{server.url}?connections=3") as tier:
        assert tier.get(*(f"atlas:{i}" for i in range(20)), ms=2000).failure == "late"
        asked = [words[1] for words in server.commands if words[0] == b"GET"]
        assert sorted(asked) == [f"atlas:{i}".encode() for i in range(6)]
        assert server.n_connections == 3


def test_values_before_a_fault_are_taken(tmp_path: Path) -> None:
    keys = [f"atlas:{i}" for i in range(4)]
    with RespServer(tmp_path) as server, tier_of(server.url) as direct:
        fill(direct, *keys)
        # "+OK" of the greeting, then one value and a half
        fault = Fault(passed=5 + MIB * 3 // 2, hold=True)
        one = "?connections=1"
        with FaultyProxy(server.port, fault) as proxy, tier_of(f"valkey://{proxy.address}{one}") as tier:
            answer = tier.get(*keys, ms=2000)
            assert (answer.failure, answer.sizes, answer.wrong) == ("late", [MIB], 0)
            assert is_in_time(answer, 2000)
            proxy.fault = None
            check_whole(tier, *keys)


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault(passed=5, cut=True), "unreachable"),
        (Fault(passed=5 + 100_000, cut=True), "unreachable"),
        (Fault(passed=5, hold=True), "late"),
        (Fault(passed=5 + 100_000, hold=True), "late"),
        (Fault(passed=0, trickle_s=0.5), "late"),
        (Fault(passed=5, trickle_s=0.3), "late"),
        (Fault(passed=5 + 100_000, trickle_s=0.1), "late"),
        (Fault(passed=0, flip=True), "broken"),
        (Fault(passed=5, flip=True), "broken"),
    ],
    ids=str,
)
def test_replies_are_spoiled(fault: Fault, failure: str, tmp_path: Path) -> None:
    with RespServer(tmp_path) as server, tier_of(server.url) as direct:
        fill(direct, "atlas:a", "atlas:b")
        with FaultyProxy(server.port, fault) as proxy, tier_of(f"valkey://{proxy.address}") as tier:
            answer = tier.get("atlas:a", "atlas:b", ms=1500)
            assert (answer.failure, answer.sizes) == (failure, []), answer.text
            assert is_in_time(answer, 1500)
            proxy.fault = None
            n_connections = proxy.n_connections
            check_whole(tier, "atlas:a", "atlas:b")
            assert proxy.n_connections > n_connections  # none of those was used again


def test_a_flipped_length_is_found_out(tmp_path: Path) -> None:
    with RespServer(tmp_path) as server, tier_of(server.url) as direct:
        fill(direct, "atlas:a", n_bytes=10)
        fault = Fault(passed=len(b"+OK\r\n$"), flip=True)  # a length of 00 instead of 10
        with FaultyProxy(server.port, fault) as proxy, tier_of(f"valkey://{proxy.address}") as tier:
            assert tier.get("atlas:a", ms=2000).failure == "broken"


NONSENSE = {
    "no RESP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "beyond the limit": b"$536870913\r\n",
    "beyond all": b"$99999999999999999999999999\r\n",
    "below zero": b"$-2\r\n",
    "no number": b"$1x\r\nab\r\n",
    "no length": b"$\r\n",
    "digits without end": b"$" + b"1" * 100_000,
    "longer than it says": b"$2\r\nabcd\r\n",
    "an array": b"*1\r\n$1\r\na\r\n",
    "an endless array": b"*99999999\r\n",
    "deep arrays": b"*1\r\n" * 100_000,
    "a line without end": b"+" + b"x" * (2 * MIB),
    "many small ones": b"*65000\r\n" + b"*65000\r\n:1\r\n" * 100_000,
    "a number": b":1\r\n",
    "a push": b">2\r\n+a\r\n+b\r\n",
    "nothing of a map": b"%1\r\n",
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense(nonsense: str) -> None:
    """Whatever comes, the call ends in time, and little memory is taken for it."""
    with FakeRespServer(lambda _: NONSENSE[nonsense]) as server, tier_of(server.url) as tier:
        before = tier.resident_bytes
        ends = "late" if nonsense == "nothing of a map" else "broken"
        answer = tier.get("atlas:a", ms=2000)
        assert (answer.failure, answer.sizes) == (ends, []), answer.text
        assert is_in_time(answer, 2000)
        answer = tier.probe("atlas:a", ms=2000)
        assert answer.failure is None if nonsense == "a number" else answer.failure in ("late", "broken")
        assert tier.resident_bytes - before < 64 * MIB


def test_a_length_alone_takes_no_memory() -> None:
    with FakeRespServer(lambda _: b"$536870912\r\nabc") as server, tier_of(server.url) as tier:
        before = tier.resident_bytes
        tier.send("get", 1000, "atlas:a")
        assert tier.answer().failure == "late"
        assert tier.resident_bytes - before < 16 * MIB


def test_a_reply_too_many_is_no_answer_to_the_next() -> None:
    once = threading.Event()

    def answer(words: list[bytes]) -> bytes:
        if words[0] == b"EXISTS" and not once.is_set():
            once.set()
            return b":1\r\n:1\r\n"
        return b":0\r\n"

    with FakeRespServer(answer) as server, tier_of(server.url) as tier:
        assert tier.probe("atlas:a").found == [True]
        assert tier.probe("atlas:a").found == [False]


@pytest.mark.parametrize(
    ("reply", "failure", "advice"),
    [
        ("LOADING Redis is loading the dataset in memory", "unreachable", "still reads its data set"),
        ("READONLY You can't write against a read only replica.", "denied", "name the primary"),
        ("MOVED 3999 127.0.0.1:6381", "broken", "?cluster=yes"),
        ("MISCONF Errors writing to the AOF file", "full", "free its disk"),
        ("CLUSTERDOWN The cluster is down", "unreachable", "does not serve all keys"),
        ("ERR max number of clients reached", "unreachable", "maxclients"),
        ("ERR unknown command 'SET'", "broken", "unknown command"),
        ("WRONGTYPE Operation against a key", "broken", "another database"),
    ],
)
def test_errors_have_names(reply: str, failure: str, advice: str) -> None:
    with FakeRespServer(lambda _: f"-{reply}\r\n".encode()) as server, tier_of(server.url) as tier:
        answer = tier.put("atlas:a")
        assert (answer.failure, advice in answer.text, server.address in answer.text) == (failure, True, True)
        assert reply in answer.text


def test_a_server_that_repeats_the_password() -> None:
    class Repeats(FakeRespServer):
        GREETINGS = (b"CLIENT",)

    def answer(words: list[bytes]) -> bytes:
        return b"-ERR unknown command 'AUTH', with args beginning with: '" + words[-1] + b"'\r\n"

    with Repeats(answer) as server, tier_of(f"valkey://:s3cret@{server.address}") as tier:
        text = tier.ping().text
        assert "unknown command 'AUTH'" in text
        assert "s3cret" not in text


def test_urls_are_refused_at_once() -> None:
    assert "percent-encoded" in problem_of("valkey://ada:pass/word@store")
