"""Small models with random weights and a real vocabulary: upstream's tests run on them."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter, Keys, PoolingType

WIDTH, HEADS, FEED_FORWARD, LAYERS = 64, 4, 128, 2
CONTEXT = 2048


def _writer(path: Path, architecture: str, vocabulary: Path) -> tuple[GGUFWriter, int]:
    """A writer that has the shape and the tokenizer of `vocabulary`, and how many tokens there are."""
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    n_tokens = 0
    for field in GGUFReader(vocabulary).fields.values():
        if field.name.startswith("tokenizer."):
            value = field.contents()
            item_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, value, field.types[0], item_type)
            n_tokens = len(value) if field.name == Keys.Tokenizer.LIST else n_tokens
    return writer, n_tokens


def _finish(writer: GGUFWriter, shapes: dict[str, tuple[int, ...]]) -> None:
    """Weights by name and shape, the slowest dimension first."""
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        weights: Any = random.normal(0, 0.1, shape) if name.endswith("weight") else np.zeros(shape)
        if "norm.weight" in name:
            weights = np.ones(shape)
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_llama(path: Path, vocabulary: Path) -> None:
    """A generative model."""
    writer, n_tokens = _writer(path, "llama", vocabulary)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_tokens, WIDTH),
        "output_norm.weight": (WIDTH,),
        "output.weight": (n_tokens, WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {f"{block}{name}_norm.weight": (WIDTH,) for name in ("attn", "ffn")}
        shapes |= {f"{block}attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{name}.weight": (FEED_FORWARD, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{block}ffn_down.weight": (WIDTH, FEED_FORWARD)}
    _finish(writer, shapes)


def write_bert(path: Path, vocabulary: Path, is_reranker: bool = False) -> None:
    """A model of embeddings, or one that ranks."""
    writer, n_tokens = _writer(path, "bert", vocabulary)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK if is_reranker else PoolingType.CLS)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_tokens, WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_types.weight": (2, WIDTH),
    }
    names = ["token_embd_norm"]
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        names += [f"{block}attn_output_norm", f"{block}layer_output_norm"]
        for name, rows, columns in (
            *((f"attn_{part}", WIDTH, WIDTH) for part in ("q", "k", "v", "output")),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
    shapes |= {f"{name}.{part}": (WIDTH,) for name in names for part in ("weight", "bias")}
    if is_reranker:
        shapes |= {"cls.weight": (WIDTH, WIDTH), "cls.bias": (WIDTH,)}
        shapes |= {"cls.output.weight": (1, WIDTH), "cls.output.bias": (1,)}
    _finish(writer, shapes)
