"""Writes a model with the shape of Llama 3.2 1B: Q4_0, random weights, and the tokenizer of upstream's tests.

It computes as fast as the real one, but that tokenizer reads no text: prompts are token arrays. The quantised
weights are drawn as they are: llama-quantize would read 2.5 GB that have to be written first, and its numbers
would be as random.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from tests.server.gguf_files import Value, gguf_writer

VOCABULARY = 128_256
WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 2048, 16, 32, 8, 8192
KV_WIDTH = WIDTH // HEADS * KV_HEADS

# A block of Q4_0: a 16-bit scale, and 32 integers of -8 to 7 in 4 bits each.
Q4_0 = np.dtype([("scale", "<f2"), ("integers", "u1", 16)])
WEIGHTS_A_BLOCK = 32
# This makes weights with a standard deviation of about 0.02.
SCALE = 0.0043

METADATA: dict[str, Value] = {
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


def _matrices() -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of all that is quantised."""
    yield "token_embd", VOCABULARY, WIDTH
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", KV_WIDTH, WIDTH),
            ("attn_v", KV_WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", FEED_FORWARD, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            yield f"blk.{layer}.{name}", rows, columns


def _random_q4_0(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint8]:
    blocks = np.empty((rows, columns // WEIGHTS_A_BLOCK), Q4_0)
    blocks["scale"] = SCALE
    blocks["integers"] = random.integers(256, size=blocks["integers"].shape, dtype=np.uint8)
    return blocks.view(np.uint8)


def write_random_model(path: Path) -> None:
    """Write the model, about 700 MB and always the same, to `path`."""
    writer = gguf_writer(path, "llama", METADATA)
    names = ["output_norm", *(f"blk.{n}.{part}_norm" for n in range(LAYERS) for part in ("attn", "ffn"))]
    norms = dict.fromkeys(names, np.ones(WIDTH, np.float32))
    for name, norm in norms.items():
        writer.add_tensor_info(f"{name}.weight", norm.shape, norm.dtype, norm.nbytes)
    for name, rows, columns in _matrices():
        n_bytes = columns // WEIGHTS_A_BLOCK * Q4_0.itemsize
        writer.add_tensor_info(
            f"{name}.weight",
            (rows, n_bytes),
            np.dtype(np.uint8),
            rows * n_bytes,
            GGMLQuantizationType.Q4_0,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for norm in norms.values():
        writer.write_tensor_data(norm)
    random = np.random.default_rng(1)
    for _, rows, columns in _matrices():
        writer.write_tensor_data(_random_q4_0(random, rows, columns))
    writer.close()
