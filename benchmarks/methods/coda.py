"""CODA-Prompt (arXiv 2211.13218): a prompt is a weighted sum of components, weighted by attention to keys.

In each of blocks 0-4: weight of component m = cos(query * attention_m, key_m); the sum of weighted components is a
prefix, its first half keys, its second half values. Each task trains its own share of the components.

Nothing is chosen, so the prompt is differentiable from end to end. New components, keys and attentions start orthogonal
to the old ones (Gram-Schmidt). The penalty keeps them so if its weight is not 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_zofc.benchmarks.methods.heads import TorchHead
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training, fit_with_head
from edge_zofc.benchmarks.methods.vit_parts import Parts, Prefix


class Components(nn.Module):
    """One block's ``size`` components [length, D] with keys [D] and attentions [D], in equal shares for the tasks.

    A component has (length + 2) D parameters: 768,000 a block for 100 of length 8 and D = 768.
    """

    def __init__(self, width: int, size: int, length: int, tasks: int) -> None:
        super().__init__()
        self.share = max(1, size // tasks)
        self.length = length
        self.old = torch.zeros(0, (length + 2) * width)
        self.new = nn.Parameter(torch.zeros(0, (length + 2) * width))
        self.width = width

    def begin(self) -> None:
        """Freeze what was trained and start a new share, orthogonal to it piece by piece."""
        self.old = torch.cat([self.old, self.new.detach()])
        self.new = nn.Parameter(torch.cat([gram_schmidt(self.share, old) for old in self._cut(self.old)], dim=1))

    def pieces(self) -> tuple[Tensor, Tensor, Tensor]:
        """Components [M, length, D], keys [M, D] and attentions [M, D]; no gradient into the old ones."""
        everything = torch.cat([self.old, self.new])
        components, keys, attentions = self._cut(everything)
        return components.reshape(-1, self.length, self.width), keys, attentions

    def _cut(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        end = self.length * self.width
        return rows[:, :end], rows[:, end : end + self.width], rows[:, end + self.width :]

    def prefix(self, query: Tensor) -> Prefix:
        """Keys and values [B, length / 2, D] for queries [B, D]."""
        components, keys, attentions = self.pieces()
        attended = functional.normalize(query[:, None] * attentions[None], dim=-1)
        weights = torch.einsum("bmd,md->bm", attended, functional.normalize(keys, dim=-1))
        prompt = torch.einsum("bm,mld->bld", weights, components)
        half = self.length // 2
        return prompt[:, :half], prompt[:, half:]

    def penalty(self) -> Tensor:
        """Sum over the three pieces of mean((P P^T - I)^2): 0 if and only if all rows are orthonormal."""
        return torch.stack([orthogonality(piece.flatten(1)) for piece in self.pieces()]).sum()


class CodaPrompt:
    """Components in ``blocks`` and a linear head on the class token."""

    frozen = False

    def __init__(
        self,
        problem: Problem,
        how: Training,
        size: int = 100,
        length: int = 8,
        blocks: tuple[int, ...] = (0, 1, 2, 3, 4),
        penalty: float = 0.0,
    ) -> None:
        self.problem, self.how, self.penalty = problem, how, penalty
        self.components = {block: Components(problem.width, size, length, problem.task_count) for block in blocks}
        self.head = TorchHead(problem.width, "linear")

    def learn(self, task: TaskData) -> list[float]:
        """Train a new share of components and the new rows."""
        for components in self.components.values():
            components.begin()
        part = [components.new for components in self.components.values()]
        return fit_with_head(self.problem, task, self.how, self.head, part, self._represent)

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures."""
        return self.head.logits(self._represent(inputs)[0])

    def parameters_of(self, task: TaskData) -> int:
        """The task's share: 384,000 for a ViT-B, 100 components and ten tasks."""
        return sum(components.new.numel() for components in self.components.values())

    def _represent(self, images: Tensor) -> tuple[Tensor, Tensor | float]:
        query = self.problem.query(images)
        parts = Parts(prefixes={block: each.prefix(query) for block, each in self.components.items()})
        extra: Tensor | float = 0.0
        if self.penalty:
            extra = self.penalty * torch.stack([c.penalty() for c in self.components.values()]).sum()
        return self.problem.features(images, parts), extra


def orthogonality(rows: Tensor) -> Tensor:
    """mean((R R^T - I)^2) of rows [M, n]."""
    return (rows @ rows.T - torch.eye(len(rows))).square().mean()


def gram_schmidt(count: int, old: Tensor) -> Tensor:
    """``count`` random unit rows [count, n], orthogonal to each other and to the rows of ``old`` [M, n].

    Where there are more rows than dimensions, the rows in excess are plain random unit rows.
    """
    basis = torch.zeros(0, old.shape[1])
    for row in [*old, *torch.rand(count, old.shape[1])]:
        rest = row - basis.T @ (basis @ row)
        rest = rest - basis.T @ (basis @ rest)
        if len(basis) < old.shape[1] and float(rest.norm()) > 1e-6:
            basis = torch.cat([basis, functional.normalize(rest, dim=0)[None]])
        else:
            basis = torch.cat([basis, functional.normalize(row, dim=0)[None]])
    return basis[len(old) :]
