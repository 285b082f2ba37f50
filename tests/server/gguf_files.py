"""Writes small GGUF files with random weights: what a server can load beside its model."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

# Of the demo model.
WIDTH = 192

Value = bool | int | float | str | list[int] | list[float] | list[str]

# A model with 32 KiB of KV a token that computes next to nothing: what fills the memory's layers soon.
WIDE_KV_BYTES = 32 * 1024
WIDE_VOCABULARY = 256
_WIDE_WIDTH, _WIDE_HEADS, _WIDE_HEAD = 32, 32, 256

# A SigLIP tower of one layer with Gemma 3's projector. Each image becomes four tokens.
_TOWER_WIDTH, _TOWER_FEED_FORWARD, _IMAGE, _PATCH, _MERGED = 32, 64, 16, 4, 2
_PROJECTOR_METADATA: dict[str, Value] = {
    "clip.has_vision_encoder": True,
    "clip.projector_type": "gemma3",
    "clip.use_gelu": True,
    "clip.vision.image_size": _IMAGE,
    "clip.vision.patch_size": _PATCH,
    "clip.vision.projector.scale_factor": _MERGED,
    "clip.vision.embedding_length": _TOWER_WIDTH,
    "clip.vision.feed_forward_length": _TOWER_FEED_FORWARD,
    "clip.vision.block_count": 1,
    "clip.vision.projection_dim": WIDTH,
    "clip.vision.attention.head_count": 2,
    "clip.vision.attention.layer_norm_epsilon": 1e-6,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_std": [0.5, 0.5, 0.5],
}
_PROJECTOR_TENSORS: dict[str, tuple[int, ...]] = {
    "v.patch_embd.weight": (_PATCH, _PATCH, 3, _TOWER_WIDTH),
    "v.patch_embd.bias": (_TOWER_WIDTH,),
    "v.position_embd.weight": (_TOWER_WIDTH, (_IMAGE // _PATCH) ** 2),
    **{f"v.blk.0.attn_{name}.weight": (_TOWER_WIDTH, _TOWER_WIDTH) for name in ("q", "k", "v", "out")},
    **{f"v.blk.0.ln{number}.weight": (_TOWER_WIDTH,) for number in (1, 2)},
    **{f"v.blk.0.ln{number}.bias": (_TOWER_WIDTH,) for number in (1, 2)},
    "v.blk.0.ffn_up.weight": (_TOWER_WIDTH, _TOWER_FEED_FORWARD),
    "v.blk.0.ffn_down.weight": (_TOWER_FEED_FORWARD, _TOWER_WIDTH),
    "v.post_ln.weight": (_TOWER_WIDTH,),
    "v.post_ln.bias": (_TOWER_WIDTH,),
    "mm.input_projection.weight": (WIDTH, _TOWER_WIDTH),
    "mm.soft_emb_norm.weight": (_TOWER_WIDTH,),
}

# Qwen2-VL's tower of one layer, which takes images of any size: a token for each so many pixels both ways.
PIXELS_OF_A_TOKEN = _PATCH * _MERGED
_PLANAR_METADATA: dict[str, Value] = {
    **{
        key: value
        for key, value in _PROJECTOR_METADATA.items()
        if key != "clip.vision.projector.scale_factor"
    },
    "clip.projector_type": "qwen2vl_merger",
}
_PLANAR_TENSORS: dict[str, tuple[int, ...]] = {
    **{
        name: shape for name, shape in _PROJECTOR_TENSORS.items() if name.startswith(("v.blk.", "v.post_ln."))
    },
    "v.patch_embd.weight": (_PATCH, _PATCH, 3, _TOWER_WIDTH),
    "v.patch_embd.weight.1": (_PATCH, _PATCH, 3, _TOWER_WIDTH),
    **{f"v.blk.0.attn_{name}.bias": (_TOWER_WIDTH,) for name in ("q", "k", "v", "out")},
    "mm.0.weight": (_TOWER_WIDTH * _MERGED**2, _TOWER_FEED_FORWARD),
    "mm.0.bias": (_TOWER_FEED_FORWARD,),
}

# Ultravox's tower of one layer: 50 tokens for each 30 seconds of sound.
_MEL, _STACKED, _POSITIONS = 8, 30, 1500
_AUDIO_METADATA: dict[str, Value] = {
    "clip.has_audio_encoder": True,
    "clip.projector_type": "ultravox",
    "clip.audio.num_mel_bins": _MEL,
    "clip.audio.projector.stack_factor": _STACKED,
    "clip.audio.embedding_length": _TOWER_WIDTH,
    "clip.audio.feed_forward_length": _TOWER_FEED_FORWARD,
    "clip.audio.block_count": 1,
    "clip.audio.projection_dim": WIDTH,
    "clip.audio.attention.head_count": 2,
    "clip.audio.attention.layer_norm_epsilon": 1e-6,
}
_AUDIO_TENSORS: dict[str, tuple[int, ...]] = {
    "a.conv1d.1.weight": (3, _MEL, _TOWER_WIDTH),
    "a.conv1d.2.weight": (3, _TOWER_WIDTH, _TOWER_WIDTH),
    **{f"a.conv1d.{number}.bias": (1, _TOWER_WIDTH) for number in (1, 2)},
    "a.position_embd.weight": (_TOWER_WIDTH, _POSITIONS),
    **{
        name.replace("v.", "a.", 1): shape
        for name, shape in _PROJECTOR_TENSORS.items()
        if name.startswith("v.blk.")
    },
    **{f"a.blk.0.attn_{name}.bias": (_TOWER_WIDTH,) for name in ("q", "v", "out")},
    **{f"a.post_ln.{kind}": (_TOWER_WIDTH,) for kind in ("weight", "bias")},
    "mm.a.norm_pre.weight": (_TOWER_WIDTH * _STACKED,),
    "mm.a.mlp.1.weight": (_TOWER_WIDTH * _STACKED, 2 * _TOWER_FEED_FORWARD),
    "mm.a.norm_mid.weight": (_TOWER_FEED_FORWARD,),
    "mm.a.mlp.2.weight": (_TOWER_FEED_FORWARD, WIDTH),
}


def write_lora(path: Path, *, layer: int = 1, begins_at: Sequence[int] = ()) -> Path:
    """A LoRA adapter of the demo model, strong enough to change its answers.

    Those of two layers differ. `begins_at`: tokens after which it begins (aLoRA); without any, it is for all
    of a prompt.
    """
    metadata: dict[str, Value] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.4,
    }
    if begins_at:
        metadata["adapter.alora.invocation_tokens"] = list(begins_at)
    query = f"blk.{layer}.attn_q.weight"
    return _write(path, "llama", metadata, {f"{query}.lora_a": (WIDTH, 4), f"{query}.lora_b": (4, WIDTH)})


# Of the weights that are multiplied in some layer, which an adapter changes.
_ADAPTED = ("attn_output", "attn_q", "attn_q_b", "attn_qkv", "ssm_out", "shortconv.out_proj", "ffn_down")


def write_lora_for(path: Path, model: Path) -> Path:
    """A LoRA adapter of a small random model: of the first weight that all of its kind have."""
    reader = GGUFReader(model)
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    names = (
        name for kind in _ADAPTED for name in shapes if name.startswith("blk.") and f".{kind}.weight" in name
    )
    name = next(name for name in names if len(shapes[name]) == 2)
    columns, rows = shapes[name]
    architecture = str(reader.fields["general.architecture"].contents())
    metadata: dict[str, Value] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 4000.0,
    }
    return _write(path, architecture, metadata, {f"{name}.lora_a": (columns, 4), f"{name}.lora_b": (4, rows)})


def write_wide_model(path: Path, context: int, *, layers: int = 1, heads: int = _WIDE_HEADS) -> Path:
    """Of one layer, if no more are asked for; prompts are token arrays.

    WIDE_KV_BYTES is the size of a token's KV in f16, with as many heads as that has.
    """
    attention = heads * _WIDE_HEAD
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": "test",
        "tokenizer.ggml.tokens": [f"token_{number}" for number in range(WIDE_VOCABULARY)],
        "llama.context_length": context,
        "llama.embedding_length": _WIDE_WIDTH,
        "llama.block_count": layers,
        "llama.feed_forward_length": _WIDE_WIDTH,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": heads,
        "llama.attention.key_length": _WIDE_HEAD,
        "llama.attention.value_length": _WIDE_HEAD,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": _WIDE_HEAD,
        "llama.rope.freq_base": 10_000.0,
    }
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (_WIDE_WIDTH, WIDE_VOCABULARY),
        "output_norm.weight": (_WIDE_WIDTH,),
    }
    for layer in range(layers):
        block = f"blk.{layer}"
        tensors |= {
            f"{block}.attn_norm.weight": (_WIDE_WIDTH,),
            **{f"{block}.attn_{name}.weight": (_WIDE_WIDTH, attention) for name in "qkv"},
            f"{block}.attn_output.weight": (attention, _WIDE_WIDTH),
            f"{block}.ffn_norm.weight": (_WIDE_WIDTH,),
            **{f"{block}.ffn_{name}.weight": (_WIDE_WIDTH, _WIDE_WIDTH) for name in ("gate", "up", "down")},
        }
    return _write(path, "llama", metadata, tensors)


def write_control_vector(path: Path) -> Path:
    """A control vector of the demo model's second layer."""
    return _write(path, "controlvector", {"controlvector.model_hint": "llama"}, {"direction.1": (WIDTH,)})


def write_projector(path: Path, width: int = WIDTH) -> Path:
    """A multimodal projector for a model of that width, which gives it eyes and understands nothing."""
    metadata = _PROJECTOR_METADATA | {"clip.vision.projection_dim": width}
    tensors = _PROJECTOR_TENSORS | {"mm.input_projection.weight": (width, _TOWER_WIDTH)}
    return _write(path, "clip", metadata, tensors)


def write_planar_projector(path: Path, width: int) -> Path:
    """One for models with M-RoPE: an image has as many tokens as its size says, and fewer positions."""
    metadata = _PLANAR_METADATA | {"clip.vision.projection_dim": width}
    tensors = _PLANAR_TENSORS | {"mm.2.weight": (_TOWER_FEED_FORWARD, width), "mm.2.bias": (width,)}
    return _write(path, "clip", metadata, tensors)


def write_audio_projector(path: Path) -> Path:
    """A projector for the demo model, which gives it ears and understands nothing."""
    return _write(path, "clip", _AUDIO_METADATA, _AUDIO_TENSORS)


def gguf_writer(path: Path, architecture: str, metadata: Mapping[str, Value]) -> GGUFWriter:
    """A writer that has the metadata; integers as unsigned 32-bit ones, which llama.cpp asks for."""
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case [int(), *_]:
                writer.add_key_value(key, value, GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT32)
            case _:
                writer.add_array(key, value)
    return writer


def _write(
    path: Path, architecture: str, metadata: Mapping[str, Value], shapes: Mapping[str, tuple[int, ...]]
) -> Path:
    """Tensors by name and shape, the fastest dimension first; always the same for one content."""
    writer = gguf_writer(path, architecture, metadata)
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.uniform(-1, 1, shape[::-1]).astype(np.float32))
    finish(writer)
    return path


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def copy_metadata(reader: GGUFReader, writer: GGUFWriter, new: Mapping[str, Value]) -> None:
    """What a model's file says of it, but for what is new; of tokens it says nothing where those are new."""
    skipped = ("GGUF.", "tokenizer.") if any(name.startswith("tokenizer.") for name in new) else ("GGUF.",)
    for name, field in reader.fields.items():
        is_old = name in new or name.startswith(skipped) or name == "general.architecture"
        value = field.contents()
        if not is_old and value != []:
            kind, of = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, value, kind, sub_type=of)


def copy_with_letters(source: Path, target: Path, context: int, *, pairs: bool = False) -> int:
    """A model of 128 tokens that has none of text, with letters for tokens and another context; its width.

    With `pairs` a few letters have a token together, too.
    """
    reader = GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    letters = ["<unk>", "<s>", "</s>", "\u2581", *map(chr, range(33, 127))]
    tokens = [*letters, "<0x0A>", *(f"<{number}>" for number in range(len(letters) + 1, 128))]
    kinds = [2, 3, 3, *[1] * 95, 6, *[4] * (127 - len(letters))]
    if pairs:
        for number, (one, other) in enumerate(product("aeiou", repeat=2)):
            tokens[100 + number], kinds[100 + number] = one + other, 1
    new: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(number) for number in range(128)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
        f"{architecture}.context_length": context,
    }
    writer = gguf_writer(target, architecture, new)
    writer.add_key_value(
        "tokenizer.ggml.token_type", kinds, GGUFValueType.ARRAY, sub_type=GGUFValueType.INT32
    )
    copy_metadata(reader, writer, new)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    finish(writer)
    return int(reader.fields[f"{architecture}.embedding_length"].contents())
