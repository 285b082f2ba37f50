"""Writes models that draft tokens for one of the random models: others much like it, and heads of it."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

from tests.server.gguf_files import Value, copy_metadata, finish, gguf_writer


def _architecture(reader: GGUFReader) -> str:
    return str(reader.fields["general.architecture"].contents())


def _number(reader: GGUFReader, name: str) -> int:
    return int(reader.fields[f"{_architecture(reader)}.{name}"].contents())


def _copy_tensors(reader: GGUFReader, writer: GGUFWriter, noise: float) -> None:
    random = np.random.default_rng(1)
    for tensor in reader.tensors:
        data = tensor.data
        if noise > 0 and tensor.name.endswith(".weight"):
            data = data + noise * data.std() * random.standard_normal(data.shape).astype(data.dtype)
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)


def copy_with_noise(source: Path, target: Path, context: int, noise: float = 0) -> Path:
    """A model for another context that foretells some of what the source says; all of it without noise."""
    reader = GGUFReader(source)
    new: dict[str, Value] = {f"{_architecture(reader)}.context_length": context}
    writer = gguf_writer(target, _architecture(reader), new)
    copy_metadata(reader, writer, new)
    _copy_tensors(reader, writer, noise)
    finish(writer)
    return target


def copy_with_head(source: Path, target: Path, context: int) -> Path:
    """A model with a head (MTP) that is made of copies of its last layer.

    It sees more of the last token than of what the model said of it, as random models themselves do, and so
    foretells some of their tokens.
    """
    reader = GGUFReader(source)
    name, n_layers = _architecture(reader), _number(reader, "block_count")
    new: dict[str, Value] = {
        f"{name}.context_length": context,
        f"{name}.block_count": n_layers + 1,
        f"{name}.nextn_predict_layers": 1,
    }
    for key, field in reader.fields.items():
        value = field.contents()
        if key.startswith(f"{name}.") and isinstance(value, list) and len(value) == n_layers:
            new[key] = [*value, value[-1]]
    writer = gguf_writer(target, name, new)
    copy_metadata(reader, writer, new)
    _copy_tensors(reader, writer, 0)
    last, head = f"blk.{n_layers - 1}.", f"blk.{n_layers}."
    scales = {each.name: each.data for each in reader.tensors if each.name.endswith(".scale")}
    for tensor in reader.tensors:
        # a model that is loaded without its head knows none of the head's scales
        if tensor.name.startswith(last) and not tensor.name.endswith("scale"):
            scale = scales.get(tensor.name.replace(".weight", ".scale"), np.ones(1, dtype=np.float32))
            data = tensor.data * scale.reshape(-1, *[1] * (tensor.data.ndim - 1))
            writer.add_tensor(head + tensor.name.removeprefix(last), data)
    one = np.eye(_number(reader, "embedding_length"), dtype=np.float32)
    writer.add_tensor(f"{head}nextn.eh_proj.weight", np.concatenate([one, one / 4], axis=1))
    for norm in ("enorm", "hnorm"):
        writer.add_tensor(f"{head}nextn.{norm}.weight", np.ones(len(one), dtype=np.float32))
    finish(writer)
    return target


def write_eagle(source: Path, target: Path, context: int) -> Path:
    """An EAGLE-3 head for a model, whose attention is mostly for the token itself."""
    reader = GGUFReader(source)
    width = _number(reader, "embedding_length")
    heads = 2
    metadata: dict[str, Value] = {
        "eagle3.context_length": context,
        "eagle3.embedding_length": width,
        "eagle3.block_count": 1,
        "eagle3.feed_forward_length": width,
        "eagle3.attention.head_count": heads,
        "eagle3.attention.head_count_kv": heads,
        "eagle3.attention.layer_norm_rms_epsilon": 1e-5,
        "eagle3.rope.dimension_count": width // heads,
        "eagle3.rope.freq_base": 10_000.0,
        "eagle3.target_hidden_size": width,
        "eagle3.target_layers": [0, 1, 1],
    }
    writer = gguf_writer(target, "eagle3", metadata)
    copy_metadata(reader, writer, metadata)
    random = np.random.default_rng(1)
    one, none = np.eye(width, dtype=np.float32), np.zeros((width, width), dtype=np.float32)
    small = random.uniform(-0.05, 0.05, (width, width)).astype(np.float32)
    tensors = {
        "fc": np.concatenate([small, small, small], axis=1),
        "blk.0.attn_q": np.concatenate([2 * one, small], axis=1),
        "blk.0.attn_k": np.concatenate([2 * one, small], axis=1),
        "blk.0.attn_v": np.concatenate([one, none], axis=1),
        "blk.0.attn_output": one,
        "blk.0.ffn_gate": small,
        "blk.0.ffn_up": small,
        "blk.0.ffn_down": small,
    }
    for norm in ("blk.0.attn_norm", "blk.0.attn_norm_2", "blk.0.ffn_norm"):
        tensors[norm] = np.ones(width, dtype=np.float32)
    tensors["output_norm"] = next(each.data for each in reader.tensors if each.name == "output_norm.weight")
    for tensor, data in tensors.items():
        writer.add_tensor(f"{tensor}.weight", data)
    finish(writer)
    return target


def write_dflash(source: Path, target: Path, context: int, *, is_dspark: bool = False) -> Path:
    """A DFlash head, or a DSpark head, for a model. What it foretells is as good as random."""
    reader = GGUFReader(source)
    width, n_tokens = _number(reader, "embedding_length"), _number(reader, "vocab_size")
    heads = 2
    metadata: dict[str, Value] = {
        "dflash.context_length": context,
        "dflash.embedding_length": width,
        "dflash.block_count": 1,
        "dflash.feed_forward_length": width,
        "dflash.attention.head_count": heads,
        "dflash.attention.head_count_kv": heads,
        "dflash.attention.layer_norm_rms_epsilon": 1e-5,
        "dflash.rope.dimension_count": width // heads,
        "dflash.rope.freq_base": 10_000.0,
        "dflash.target_layers": [0, 1],
        "dflash.block_size": 4,
        "tokenizer.ggml.mask_token_id": 1,
    }
    writer = gguf_writer(target, "dflash", metadata)
    for key, field in reader.fields.items():
        value = field.contents()
        if key.startswith("tokenizer.") and key not in metadata and value != []:
            kind, of = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, value, kind, sub_type=of)
    random = np.random.default_rng(1)
    shapes = {"fc": (width, 2 * width)}
    shapes |= {f"blk.0.{name}": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.ffn_{name}": (width, width) for name in ("gate", "up", "down")}
    shapes |= {"markov_w1": (n_tokens, 16), "markov_w2": (n_tokens, 16)} if is_dspark else {}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.uniform(-0.2, 0.2, shape).astype(np.float32))
    for name in ("enc.output_norm", "output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    for name in ("blk.0.attn_q_norm", "blk.0.attn_k_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width // heads, dtype=np.float32))
    finish(writer)
    return target
