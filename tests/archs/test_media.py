"""Prompts with images come back after kill -9, whatever a model's state is made of."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.archs.conftest import FEW_MEDIA, FEW_MODELS, PLANAR, wants_all
from tests.archs.test_archs import SERVER, TOLERANCE_OF_BATCHES, difference, most_likely
from tests.server.conversations import COLD, NO_PRELOADING, flush, kill_and_start, memory_status
from tests.server.gguf_files import (
    PIXELS_OF_A_TOKEN,
    copy_with_letters,
    write_planar_projector,
    write_projector,
)
from tests.server.harness import STOCK_BINARY, Server
from tests.server.videos import video, write_ffmpeg

CONTEXT = 4096
BLOCK = 16
# A token is a letter.
TEXT = "The heron stands in the river and waits for a fish. " * 2
LAST = TEXT * 2
# Tokens of a picture across and down, where the projector heeds its size: fewer than a block has, and more.
SIZES = [(5, 3), (8, 6), (2, 9)]
# So many that some are cut by the ends of blocks.
SHADES = range(10, 250, 24)

Part = str | int | bytes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    few = [name for name in FEW_MEDIA if name in PLANAR]
    if "planar_name" in metafunc.fixturenames:
        metafunc.parametrize("planar_name", PLANAR if wants_all(metafunc.config) else few)
    if "name" in metafunc.fixturenames:
        everything = sorted({*FEW_MODELS, *PLANAR})
        metafunc.parametrize("name", everything if wants_all(metafunc.config) else FEW_MEDIA)


def picture(shade: int) -> bytes:
    """Of one colour; its size depends on that."""
    width, height = (side * PIXELS_OF_A_TOKEN for side in SIZES[shade % len(SIZES)])
    return b"P6 %d %d 255\n" % (width, height) + bytes([shade]) * (width * height * 3)


def talk(*shades: int) -> list[Part]:
    """Texts with a picture behind each, and text behind all."""
    told = (part for count, shade in enumerate(shades) for part in (f"{shade} {TEXT}{'.' * count}", shade))
    return [*told, LAST]


def post(server: Server, parts: list[Part], **fields: Any) -> httpx.Response:
    """Ask what comes behind texts, pictures, which are numbers: their shades, and files of other media."""
    marker = server.get("/props").json()["media_marker"]
    prompt = {
        "prompt_string": "".join(part if isinstance(part, str) else marker for part in parts),
        "multimodal_data": [
            base64.b64encode(part if isinstance(part, bytes) else picture(part)).decode()
            for part in parts
            if not isinstance(part, str)
        ],
    }
    body = {"prompt": prompt, "n_predict": 4, "temperature": 0, "ignore_eos": True, "n_probs": 10}
    return server.post("/completion", body | {"return_tokens": True, "atlas": {}} | fields)


def ask(server: Server, parts: list[Part], **fields: Any) -> dict[str, Any]:
    """The answer, which must be a good one."""
    response = post(server, parts, **fields)
    assert response.status_code == 200, response.text + server.log[-1500:]
    answer: dict[str, Any] = response.json()
    return answer


def assert_same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert difference(most_likely(answer)[0], most_likely(expected)[0]) <= TOLERANCE_OF_BATCHES


class Seeing:
    """A model that sees, and how its server is started."""

    def __init__(self, name: str, models: Path, directory: Path, *options: str | Path) -> None:
        self.directory = directory
        self.model = directory / "model.gguf"
        width = copy_with_letters(models / f"{name}.gguf", self.model, CONTEXT)
        write = write_planar_projector if name in PLANAR else write_projector
        self.options: list[str | Path] = [
            *SERVER,
            "--mmproj",
            write(directory / "mmproj.gguf", width),
            *options,
        ]

    def ours(self) -> Server:
        memory = ["--atlas-memory-path", str(self.directory / "memory"), "--atlas-block-tokens", str(BLOCK)]
        return Server([*self.options, *memory, *NO_PRELOADING], directory=self.directory, model=self.model)

    def stock(self) -> Server:
        return Server(self.options, directory=self.directory, model=self.model, binary=STOCK_BINARY)


def restart(server: Server) -> None:
    flush(server)
    kill_and_start(server)


def test_comes_back(name: str, models: Path, tmp_path: Path) -> None:
    seeing = Seeing(name, models, tmp_path, "-c", str(2 * CONTEXT))
    told, goes_on = talk(*SHADES), [*talk(*SHADES), "And then it flies away."]
    changed = talk(*SHADES[:6], 131, *SHADES[7:])
    with seeing.ours() as server:
        assert "problem" not in memory_status(server)
        first = ask(server, told)
        restart(server)
        again = ask(server, goes_on)
        assert again["timings"]["prompt_n"] < len(LAST)  # so that no picture was encoded
        other = ask(server, changed)
        assert other["timings"]["cache_n"] < 0.6 * first["timings"]["prompt_n"]
    with seeing.stock() as stock:
        assert_same(again, ask(stock, goes_on))
        assert_same(other, ask(stock, changed))


def test_at_least_what_stock_reuses(name: str, models: Path, tmp_path: Path) -> None:
    """A chat on one slot, and what else its beginning leads to; then all of it again after kill -9."""
    seeing = Seeing(name, models, tmp_path, "-np", "1")
    begin: list[Part] = [TEXT, 10, "One. " + TEXT]
    second: list[Part] = [35, "Two. " + TEXT]
    twice: list[Part] = [60, 60, "Three and four. " + TEXT]
    chat = [
        begin,
        begin + second,
        begin + second + twice,
        begin + twice,  # a picture is taken out
        [*begin, *second, *twice, "And now? " * 4],
    ]
    branches = [
        [*begin[:2], "Something else. " + TEXT],  # right behind a picture
        [*begin[:2], 60, 60, 60, "Three of a kind. " + TEXT],
        [*begin[:2], 60, 60, "Two of a kind. " + TEXT],
    ]
    with seeing.stock() as cold:
        expected = [ask(cold, parts, **COLD) for parts in chat + branches]
    gained = 0
    with seeing.ours() as server, seeing.stock() as stock:
        for parts, right in zip(chat + branches, expected, strict=True):
            answer, stocks = ask(server, parts), ask(stock, parts)
            assert_same(answer, right)
            gain = answer["timings"]["cache_n"] - stocks["timings"]["cache_n"]
            gained += gain
            # Where stock computed a beginning several times, it may have taken a checkpoint of it.
            assert gain >= 0 or (parts in branches and gained >= 0), parts
        restart(server)
        for parts, right in zip(chat + branches, expected, strict=True):
            answer = ask(server, parts)
            assert answer["timings"]["prompt_n"] < len(TEXT)  # so that no picture was encoded
            assert_same(answer, right)


def test_videos(name: str, models: Path, tmp_path: Path) -> None:
    """Pictures of a video come back, but those of another, or at another rate, are not taken for them."""
    seeing = Seeing(name, models, tmp_path, *write_ffmpeg(tmp_path), "--video-fps", "4")
    width, height = (side * PIXELS_OF_A_TOKEN for side in SIZES[1])
    first, second = (video(list(range(shade, shade + 16)), width, height) for shade in (10, 200))
    told: list[Part] = [TEXT, first, "So? " + TEXT]
    goes_on: list[Part] = [*told, second, LAST]
    before = 1 + len(TEXT + "Video:" + "<|vision_start|>")  # tokens before the first picture
    swapped: list[Part] = [TEXT, second, "So? " + TEXT, first, LAST]
    with seeing.ours() as server:
        n_told = ask(server, told)["timings"]["prompt_n"]
        ask(server, goes_on)
        restart(server)
        again = ask(server, [*goes_on, "And now?"])
        assert again["timings"]["prompt_n"] < len(LAST)  # so that no picture was encoded
        other = ask(server, swapped)
        flush(server)
    assert other["timings"]["cache_n"] <= before
    seeing.options[-1] = "2"
    with seeing.ours() as server:
        slower = ask(server, told)
        assert slower["timings"]["cache_n"] <= before
        assert slower["timings"]["prompt_n"] < n_told - len(TEXT)  # there are fewer pictures
    with seeing.stock() as stock:
        assert_same(slower, ask(stock, told))


def test_cells_that_slots_share(planar_name: str, models: Path, tmp_path: Path) -> None:
    """Two conversations have a place each by their positions, but not by their cells."""
    n_cells = 1024
    shared = ["-np", "2", "-c", str(n_cells), "-kvu", "--no-cache-idle-slots"]
    seeing = Seeing(planar_name, models, tmp_path, *shared)
    large = [shade for shade in range(250) if SIZES[shade % len(SIZES)] == (8, 6)]
    one: list[Part] = [*(part for shade in large[:8] for part in ("A", shade)), TEXT]
    other: list[Part] = ["B", large[8], TEXT * 3]
    with seeing.ours() as server:
        tokens = [ask(server, parts)["timings"]["prompt_n"] for parts in (one, other)]
        n_positions = tokens[0] - 8 * (8 * 6 - 8)
        assert n_positions + tokens[1] < n_cells < sum(tokens)
        restart(server)
        for _ in range(2):
            for slot, parts in enumerate((one, other)):
                answer = ask(server, parts, id_slot=slot)
                assert answer["timings"]["prompt_n"] < len(TEXT), answer["atlas"]
        assert "not restored" not in server.log
