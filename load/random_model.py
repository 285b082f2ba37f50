"""Writes a model with the shape of Llama 3.2 1B: Q4_0, random weights, and the tokenizer of upstream's tests.

It computes as fast as the real one, but that tokenizer reads no text: prompts are token arrays. The format is
GGUF 3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, written here so that no package is needed.
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

VOCABULARY = 128_256
WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 2048, 16, 32, 8, 8192
KV_WIDTH = WIDTH // HEADS * KV_HEADS

ALIGNMENT = 32
F32, Q4_0 = 0, 2
Q4_0_WEIGHTS, Q4_0_BYTES = 32, 18
# Of the 4-bit integers -8 to 7 this makes weights with a standard deviation of about 0.02.
Q4_0_SCALE = struct.pack("<e", 0.0043)
CHUNK_BLOCKS = 1 << 16

METADATA: dict[str, str | int | float | list[str]] = {
    "general.architecture": "llama",
    "general.alignment": ALIGNMENT,
    "tokenizer.ggml.model": "test",
    "tokenizer.ggml.tokens": [f"token_{i}" for i in range(VOCABULARY)],
    "llama.context_length": 131_072,
    "llama.embedding_length": WIDTH,
    "llama.block_count": LAYERS,
    "llama.feed_forward_length": FEED_FORWARD,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": WIDTH // HEADS,
    "llama.rope.freq_base": 500_000.0,
}


class Tensor(NamedTuple):
    """A row of weights, or `columns` x `rows` of them quantised."""

    name: str
    columns: int
    rows: int = 0

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return self.columns * self.rows // Q4_0_WEIGHTS * Q4_0_BYTES if self.rows else 4 * self.columns

    @property
    def header(self) -> bytes:
        """All of the tensor's description but the offset."""
        dimensions = [self.columns, self.rows] if self.rows else [self.columns]
        kind = Q4_0 if self.rows else F32
        return _string(self.name) + struct.pack(f"<I{len(dimensions)}QI", len(dimensions), *dimensions, kind)

    def data(self, source: random.Random) -> Iterator[bytes]:
        """Random quantised weights, or ones."""
        if not self.rows:
            yield struct.pack(f"<{self.columns}f", *[1.0] * self.columns)
            return
        for begin in range(0, self.size, CHUNK_BLOCKS * Q4_0_BYTES):
            chunk = bytearray(source.randbytes(min(CHUNK_BLOCKS * Q4_0_BYTES, self.size - begin)))
            for place, byte in enumerate(Q4_0_SCALE):
                chunk[place::Q4_0_BYTES] = bytes([byte]) * (len(chunk) // Q4_0_BYTES)
            yield bytes(chunk)


def _tensors() -> Iterator[Tensor]:
    yield Tensor("token_embd.weight", WIDTH, VOCABULARY)
    yield Tensor("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        yield Tensor(f"{prefix}attn_norm.weight", WIDTH)
        yield Tensor(f"{prefix}attn_q.weight", WIDTH, WIDTH)
        yield Tensor(f"{prefix}attn_k.weight", WIDTH, KV_WIDTH)
        yield Tensor(f"{prefix}attn_v.weight", WIDTH, KV_WIDTH)
        yield Tensor(f"{prefix}attn_output.weight", WIDTH, WIDTH)
        yield Tensor(f"{prefix}ffn_norm.weight", WIDTH)
        yield Tensor(f"{prefix}ffn_gate.weight", WIDTH, FEED_FORWARD)
        yield Tensor(f"{prefix}ffn_up.weight", WIDTH, FEED_FORWARD)
        yield Tensor(f"{prefix}ffn_down.weight", FEED_FORWARD, WIDTH)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: str | int | float | list[str]) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + _string(value)
        case list():
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
        case int():
            return struct.pack("<II", 4, value)
        case _:
            return struct.pack("<If", 6, value)


def write_random_model(path: Path) -> None:
    """Write the model, about 700 MB and always the same, to `path`."""
    tensors = list(_tensors())
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(METADATA)))
    for key, value in METADATA.items():
        header += _string(key) + _value(value)
    offset = 0
    for tensor in tensors:
        header += tensor.header + struct.pack("<Q", offset)
        offset += tensor.size + -tensor.size % ALIGNMENT
    source = random.Random(1)
    with path.open("wb") as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        for tensor in tensors:
            for chunk in tensor.data(source):
                file.write(chunk)
            file.write(bytes(-tensor.size % ALIGNMENT))
