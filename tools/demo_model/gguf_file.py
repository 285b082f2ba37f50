"""Writes the trained weights as a GGUF file that llama-server serves as a chat model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from demo_model import tokenizer as tokens
from demo_model.tokenizer import Tokenizer

NAME = "ATLAS demo"
TRAINED_CONTEXT = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>"
    "{% elif message.role == 'system' %}<|system|>"
    "{% else %}<|user|>{% endif %}{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. `width` is a multiple of `heads`."""

    vocabulary: int
    width: int = 192
    layers: int = 4
    heads: int = 6
    hidden: int = 512
    rope_base: float = 100_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Of one attention head."""
        return self.width // self.heads


def write(path: Path, weights: Mapping[str, NDArray[np.float32]], shape: Shape, tokenizer: Tokenizer) -> None:
    """Write `weights`, by their GGUF names, with 16-bit matrices and 32-bit vectors. Raises OSError."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_license("MIT")
    writer.add_sampling_temp(0.0)  # its answers are right or wrong: chance only spoils them
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(TRAINED_CONTEXT)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor.astype(np.float32 if tensor.ndim == 1 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    special = len(tokens.SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL if n < special else gguf.TokenType.NORMAL
            for n in range(len(tokenizer.tokens))
        ]
    )
    writer.add_token_merges([f"{first} {second}" for first, second in tokenizer.merges])
    writer.add_bos_token_id(tokens.BEGIN)
    writer.add_eos_token_id(tokens.END)
    writer.add_eot_token_id(tokens.END)
    writer.add_pad_token_id(tokens.PADDING)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
