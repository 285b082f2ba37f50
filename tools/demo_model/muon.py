"""Muon: momentum whose matrices are made orthogonal.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [count, rows, columns] of the same directions with singular values near 1.

    By five steps of Newton and Schulz's iteration.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.mT if tall else x


class Muon:
    """The optimiser. Each matrix comes with the number of those it holds one below the other."""

    def __init__(
        self, matrices: Iterable[tuple[Tensor, int]], momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        self._momenta = [(matrix, parts, torch.zeros_like(matrix)) for matrix, parts in matrices]
        self._momentum = momentum
        self._decay = decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move each matrix against its gradient by `rate`."""
        by_shape: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for matrix, parts, momentum in self._momenta:
            momentum.lerp_(matrix.grad, 1 - self._momentum)
            update = matrix.grad.lerp(momentum, self._momentum)
            for part, change in zip(matrix.chunk(parts), update.chunk(parts), strict=True):
                by_shape[part.shape].append((part, change))
        for shape, pairs in by_shape.items():
            changes = orthogonalised(torch.stack([change for _, change in pairs]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for (part, _), change in zip(pairs, changes, strict=True):
                part.mul_(1 - rate * self._decay).add_(change, alpha=-rate * scale)
