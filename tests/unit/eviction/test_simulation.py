"""The simulator: the layer, other orders, traces."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from atlas_cli.simulation import (
    LOADS,
    POLICIES,
    MissingLibrary,
    TraceError,
    TraceRequest,
    key_of,
    read_trace,
    replay,
    write_trace,
)
from tests.unit.eviction.loads import generated


def requests_of(*documents: Sequence[int]) -> list[TraceRequest]:
    return [TraceRequest(tuple(map(key_of, ids)), 512 * len(ids)) for ids in documents]


class TestReplay:
    def test_a_layer_gives_up_leaves_first(self) -> None:
        result = replay(requests_of([0, 1, 2], [0, 3], [0, 1, 2]), "lru", 3)
        assert (result.blocks, result.block_hits, result.prefix_hits) == (8, 3, 3)
        result = replay(requests_of([0, 1, 2], [0, 3], [0, 1, 2]), "lru", 4)
        assert (result.prefix_hits, result.prefix_rate) == (4, 0.5)

    def test_tokens_of_partial_blocks(self) -> None:
        requests = [TraceRequest((key_of(1), key_of(2)), 600), TraceRequest((key_of(1), key_of(2)), 600)]
        result = replay(requests, "adaptive", 10)
        assert (result.tokens, result.prefix_tokens, result.token_rate) == (1_200, 600, 0.5)

    def test_bytes(self) -> None:
        """A tail takes its part of a block's bytes."""
        requests = [TraceRequest((key_of(1), key_of(2)), 640, 512)] * 2
        assert replay(requests, "lru", 1_250, 1_000).prefix_hits == 2
        assert replay(requests, "lru", 1_249, 1_000).prefix_hits == 1

    def test_a_request_larger_than_the_layer(self) -> None:
        for policy in "adaptive", "lru", "lfu", "lfu-classic", "belady":
            assert replay(requests_of(range(50), range(50)), policy, 10).prefix_hits == 10

    def test_classic_lfu_never_ages(self) -> None:
        requests = requests_of([1], [1], [1], [2], [2], *([number] for number in range(3, 100)), [1], [2])
        assert replay(requests, "lfu-classic", 3).block_hits == 5

    def test_nothing_beats_belady(self) -> None:
        for load in LOADS:
            requests = generated(load, 300, 600)
            best = replay(requests, "belady", 200).prefix_hits
            assert all(replay(requests, name, 200).prefix_hits <= best for name in ("adaptive", "lru", "lfu"))
        requests = requests_of([1], [2], [3], [1], [2], [3], [1], [2], [3])
        assert replay(requests, "belady", 2).block_hits == 4

    def test_the_same_again(self) -> None:
        requests = generated("scan", 500, 600)
        first, second = (replay(requests, "adaptive", 300) for _ in range(2))
        assert first.prefix_hits == second.prefix_hits

    @pytest.mark.parametrize(
        ("policy", "capacity", "block_bytes", "message"),
        [
            ("fifo", 1, 1, "there is no policy 'fifo'; the policies are lru, "),
            ("lru", 0, 1, "capacity must be at least 1, not 0"),
            ("lru", 1, 0, "block_bytes must be at least 1, not 0"),
        ],
    )
    def test_what_is_wrong_is_named(self, policy: str, capacity: int, block_bytes: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            replay(requests_of([1]), policy, capacity, block_bytes)
        with pytest.raises(ValueError, match="no requests"):
            replay([], "lru", 1)


class TestExternal:
    def test_a_missing_library_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "libcachesim", None)
        with pytest.raises(MissingLibrary, match=r"'arc' needs .* libcachesim .*\[baselines\]"):
            replay(requests_of([1]), "arc", 1)

    def test_each_algorithm_is_asked_block_by_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against a stand-in with the interface of libcachesim that remembers everything."""

        class Cache:
            def __init__(self, cache_size: int) -> None:
                assert cache_size == 7
                self.seen: set[int] = set()

            def get(self, request: SimpleNamespace) -> bool:
                assert request.obj_size == 1
                hit = request.obj_id in self.seen
                self.seen.add(request.obj_id)
                return hit

        caches = dict.fromkeys(("ARC", "LIRS", "GDSF", "Cacheus"), Cache)
        monkeypatch.setitem(sys.modules, "libcachesim", SimpleNamespace(Request=SimpleNamespace, **caches))
        for policy in POLICIES[-4:]:
            assert replay(requests_of([1, 2], [1, 3], [1, 2, 3]), policy, 7).prefix_hits == 4


class TestTraces:
    @pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.xz"])
    def test_written_and_read(self, tmp_path: Path, name: str) -> None:
        rows = list(LOADS["shift"](50, 200, 3))
        write_trace(tmp_path / name, rows)
        requests = list(read_trace(tmp_path / name))
        assert requests == [TraceRequest(tuple(map(key_of, ids)), tokens) for ids, tokens in rows]

    def test_another_block_size(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_bytes(b'{"input_length": 300, "hash_ids": [0, 1]}\n\n')
        (request,) = read_trace(path, 256)
        assert (len(request.keys), request.tail_tokens) == (2, 44)

    @pytest.mark.parametrize("load", LOADS)
    def test_a_seed_decides(self, load: str) -> None:
        first, second, other = (list(LOADS[load](100, 400, seed)) for seed in (1, 1, 2))
        assert first == second != other

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"{", "not JSON"),
            (b"[]", "must be a JSON object"),
            (b"{}", "input_length: is missing"),
            (b'{"input_length": 1}', "hash_ids: is missing"),
            (b'{"input_length": 0, "hash_ids": []}', "input_length: must be a whole number of at least 1"),
            (b'{"input_length": 1.5, "hash_ids": [1]}', "input_length: must be a whole number"),
            (b'{"input_length": true, "hash_ids": [1]}', "input_length: must be a whole number"),
            (b'{"input_length": 1, "hash_ids": 1}', "hash_ids: must be an array of whole numbers from 0"),
            (b'{"input_length": 1, "hash_ids": [-1]}', "hash_ids: must be an array of whole numbers from 0"),
            (b'{"input_length": 1, "hash_ids": ["1"]}', "hash_ids: must be an array of whole numbers from 0"),
            (
                b'{"input_length": 513, "hash_ids": [1]}',
                "hash_ids: has 1 blocks, but input_length 513 makes 2",
            ),
            (b'{"input_length": 1024, "hash_ids": [8, 8]}', "hash_ids: names a block twice"),
            (
                b'{"input_length": 600, "hash_ids": [2, 1]}',
                "hash_ids: block 2 comes first here, but follows 1",
            ),
            (
                b'{"input_length": 600, "hash_ids": [3, 2]}',
                "hash_ids: block 2 follows 3 here, but follows 1 in",
            ),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, line: bytes, message: str) -> None:
        path = tmp_path / "t.jsonl"
        good = msgspec.json.encode({"input_length": 1_000, "hash_ids": [1, 2]})
        path.write_bytes(good + b"\n" + line + b"\n")
        with pytest.raises(TraceError) as caught:
            list(read_trace(path))
        assert str(caught.value).startswith(f"{path}, line 2: {message}")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("t.jsonl", None, "cannot be read: .*No such file"),
            ("t.jsonl", b"", "holds no requests"),
            ("t.jsonl", b"\n\n", "holds no requests"),
            ("t.jsonl.gz", b"{}", "cannot be read: Not a gzipped file"),
            ("t.jsonl.xz", b"{}", "cannot be read: "),
        ],
    )
    def test_a_file_that_is_no_trace(
        self, tmp_path: Path, name: str, content: bytes | None, message: str
    ) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(TraceError, match=message):
            list(read_trace(tmp_path / name))
