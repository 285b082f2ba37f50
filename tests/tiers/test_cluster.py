"""A cluster of three servers: each key goes to its own, also when it moves, and what is down is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faulty_network import FakeRespServer
from tests.stores import ACL, RespCluster
from tests.tiers.driver import is_in_time, tier_of

KEYS = [f"atlas:{i}" for i in range(40)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RespCluster]:
    with RespCluster(tmp_path) as servers:
        yield servers


def test_spreads_keys(cluster: RespCluster) -> None:
    with tier_of(cluster.url) as tier:
        for key in KEYS:
            assert tier.put(key, 200_000).failure is None
        counts = [server.command("DBSIZE") for server in cluster.servers]
        assert sum(counts) == len(KEYS)
        assert all(count > 3 for count in counts)
        got = tier.get(*KEYS)
        assert (got.failure, list(got.sizes), got.wrong) == (None, [200_000] * len(KEYS), 0)
        assert tier.probe(*KEYS, "atlas:never").found == [*[True] * len(KEYS), False]


def test_is_found_without_the_option_where_several_hosts_are_named(cluster: RespCluster) -> None:
    hosts = ",".join(server.address for server in cluster.servers)
    with tier_of(f"valkey://{hosts}") as tier:
        for key in KEYS:
            assert tier.put(key).failure is None


def test_least_rights_are_enough(cluster: RespCluster) -> None:
    for server in cluster.servers:
        server.command("ACL", "SETUSER", "ada", "on", ">word", *ACL.split())
    with tier_of(cluster.url.replace("://", "://ada:word@")) as tier:
        for key in KEYS:
            assert tier.put(key).failure is None
        assert tier.get(*KEYS).sizes == [100] * len(KEYS)


def test_single_server_says_that_it_is_none(cluster: RespCluster) -> None:
    with tier_of(cluster.servers[0].url) as tier:
        answers = [tier.put(key) for key in KEYS]
        refused = [answer for answer in answers if answer.failure]
        assert 0 < len(refused) < len(KEYS)
        assert all("add ?cluster=yes" in answer.text for answer in refused)


def test_follows_slots_that_move(cluster: RespCluster) -> None:
    with tier_of(cluster.url) as tier:
        for key in KEYS:
            assert tier.put(key).failure is None
        for server in cluster.servers:
            server.command("FLUSHALL")
        # All of the first server's that have a key of ours go to the second.
        first, second, _ = cluster.servers
        moved = {key: first.command("CLUSTER", "KEYSLOT", key) for key in KEYS}
        moved = {key: slot for key, slot in moved.items() if slot < RespCluster.N_SLOTS // 3}
        for slot in set(moved.values()):
            cluster.move_slot(slot, first, second)
        assert moved
        for key in KEYS:
            assert tier.put(key).failure is None
        assert first.command("DBSIZE") == 0
        assert tier.get(*KEYS).sizes == [100] * len(KEYS)
        assert all(tier.probe(*KEYS).found)
        assert all(tier.keep(*KEYS).found)
        assert tier.remove(*KEYS).failure is None
        assert not any(tier.probe(*KEYS).found)


def test_a_key_that_is_being_moved_is_not_there(cluster: RespCluster) -> None:
    first, second, _ = cluster.servers
    key = next(key for key in KEYS if first.command("CLUSTER", "KEYSLOT", key) < RespCluster.N_SLOTS // 3)
    slot = first.command("CLUSTER", "KEYSLOT", key)
    with tier_of(cluster.url) as tier:
        second.command("CLUSTER", "SETSLOT", slot, "IMPORTING", first.command("CLUSTER", "MYID"))
        first.command("CLUSTER", "SETSLOT", slot, "MIGRATING", second.command("CLUSTER", "MYID"))
        assert tier.probe(key, key).found == [False, False]
        got = tier.get(key)
        assert (got.failure, list(got.sizes)) == (None, [])
        answer = tier.put(key)
        assert (answer.failure, "moves these keys" in answer.text) == ("unreachable", True)


def test_one_that_is_down(cluster: RespCluster) -> None:
    with tier_of(cluster.url) as tier:
        for key in KEYS:
            assert tier.put(key).failure is None
        down = cluster.servers[0]  # the one of the URL
        down.kill()
        answer = tier.probe(*KEYS, ms=3000)
        assert answer.failure == "unreachable"
        assert down.address in answer.text
        assert is_in_time(answer, 3000)
        down.start()
        down.wait_until(lambda: b"cluster_state:ok" in down.command("CLUSTER", "INFO"))
        assert tier.put(KEYS[0]).failure is None


def test_one_that_is_stopped(cluster: RespCluster) -> None:
    with tier_of(cluster.url) as tier:
        for key in KEYS:
            assert tier.put(key).failure is None
        cluster.servers[1].stop()
        for answer in (tier.probe(*KEYS, ms=300), tier.get(*KEYS, ms=300), tier.ping(ms=300)):
            assert answer.failure == "late"
            assert is_in_time(answer, 300)
        cluster.servers[1].go_on()


@pytest.mark.parametrize(
    "slots",
    [
        b"*0\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        b"*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\na\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:4\r\n*2\r\n$1\r\na\r\n:65536\r\n",
        b"*1\r\n*3\r\n:0\r\n:4\r\n*0\r\n",
        b"+OK\r\n",
        b"-ERR This instance has cluster support disabled\r\n",
    ],
)
def test_nonsense_about_slots(slots: bytes) -> None:
    with FakeRespServer(lambda _: slots) as server, tier_of(f"{server.url}?cluster=yes") as tier:
        answer = tier.put("atlas:a")
        assert answer.failure in ("broken", "unreachable")
        assert server.address in answer.text


def test_slots_that_nobody_has() -> None:
    def answer(words: list[bytes]) -> bytes:
        port = str(server.port).encode()
        slots = b"*1\r\n*3\r\n:0\r\n:0\r\n*2\r\n$-1\r\n:" + port + b"\r\n"
        return slots if words[0] == b"CLUSTER" else b":1\r\n"

    with FakeRespServer(answer) as server, tier_of(f"{server.url}?cluster=yes") as tier:
        assert "no server of its cluster serves this key" in tier.probe("atlas:a").text
