"""The network, as llama.cpp computes the llama architecture.

RMS norms, rotary positions, SwiGLU, tied embeddings.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812  the name that PyTorch's users expect
from torch import Tensor, nn

from demo_model.gguf_file import Shape

_LONGEST = 4096


def rotation(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE (Su et al., 2021): [positions, head width / 2]."""
    exponents = torch.arange(0, shape.head_width, 2).float() / shape.head_width
    angles = torch.outer(torch.arange(_LONGEST).float(), shape.rope_base**-exponents)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate pairs (0, 1), (2, 3), ... of [..., positions, head width], as the llama architecture does."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.stack(turned, -1).flatten(-2)


class Block(nn.Module):
    """Attention and a gated feed-forward layer, both added to their input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.shape = shape
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.hidden_norm = nn.Parameter(torch.ones(width))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_output = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        batch, positions, width = x.shape
        heads, epsilon = self.shape.heads, self.shape.norm_epsilon
        normed = F.rms_norm(x, (width,), self.attention_norm, epsilon)
        projected = self.query_key_value(normed).view(batch, positions, 3, heads, width // heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        query, key = (rotate(each, cosines, sines).to(value.dtype) for each in (query, key))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_output(attended.transpose(1, 2).reshape(batch, positions, width))
        gate, up = self.gate_up(F.rms_norm(x, (width,), self.hidden_norm, epsilon)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Network(nn.Module):
    """Token numbers [batch, positions] to states [batch, positions, width]; `logits` makes logits of them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.width))
        cosines, sines = rotation(shape)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, 0, parameter.shape[1] ** -0.5)
        nn.init.normal_(self.embedding.weight, 0, 0.02)
        for block in self.blocks:
            # Small additions at first let the signal through all layers.
            block.attention_output.weight.data.mul_(0.3)
            block.down.weight.data.mul_(0.3)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = tokens.shape[1]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosines[:positions], self.sines[:positions])
        return F.rms_norm(x, (self.shape.width,), self.output_norm, self.shape.norm_epsilon)

    def logits(self, states: Tensor) -> Tensor:
        """States [..., width] to logits [..., vocabulary]."""
        return F.linear(states, self.embedding.weight)

    def matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The weights of the blocks, each with the number of matrices it holds one below the other."""
        found = ((weight, len(names)) for weight, names in self._block_weights())
        return [(weight, parts) for weight, parts in found if weight.dim() == 2]

    def tensors(self) -> dict[str, Tensor]:
        """The weights by the names that GGUF files of the llama architecture give them."""
        return {
            name: part.detach().float().contiguous()
            for weight, names in self._weights()
            for name, part in zip(names, weight.chunk(len(names)), strict=True)
        }

    def _weights(self) -> Iterator[tuple[nn.Parameter, list[str]]]:
        yield self.embedding.weight, ["token_embd.weight"]
        yield self.output_norm, ["output_norm.weight"]
        yield from self._block_weights()

    def _block_weights(self) -> Iterator[tuple[nn.Parameter, list[str]]]:
        """Every weight of the blocks with the tensors of a GGUF file that it holds one below the other."""
        for number, block in enumerate(self.blocks):
            for weight, names in (
                (block.attention_norm, ("attn_norm",)),
                (block.hidden_norm, ("ffn_norm",)),
                (block.query_key_value.weight, ("attn_q", "attn_k", "attn_v")),
                (block.attention_output.weight, ("attn_output",)),
                (block.gate_up.weight, ("ffn_gate", "ffn_up")),
                (block.down.weight, ("ffn_down",)),
            ):
                yield weight, [f"blk.{number}.{name}.weight" for name in names]
