"""DualPrompt (arXiv 2204.04799): a general prompt for all tasks and an expert prompt for each.

Both are prefixes: extra keys and values in the attention of some blocks. A task trains its own expert; at test the
expert whose key is nearest to the frozen model's feature is taken.

Training never chooses, because the task is known then. A wrong key shows at test only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import TorchHead, cosines
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training, fit_with_head
from edge_zofc.benchmarks.methods.vit_parts import Parts, Prefix


class Expert(nn.Module):
    """One task's prefixes [blocks, 2, length, D] and key [D]: 23,040 + 768 parameters for a ViT-B."""

    def __init__(self, width: int, blocks: int, length: int) -> None:
        super().__init__()
        self.prefixes = nn.Parameter(torch.empty(blocks, 2, length, width).uniform_(-1, 1))
        self.key = nn.Parameter(torch.empty(width).uniform_(-1, 1))


class DualPrompt:
    """General prefixes in ``general_blocks``, experts in ``expert_blocks``, a linear head on the class token."""

    frozen = False

    def __init__(
        self,
        problem: Problem,
        how: Training,
        length: int = 5,
        general_blocks: tuple[int, ...] = (0, 1),
        expert_blocks: tuple[int, ...] = (2, 3, 4),
        pull: float = 1.0,
    ) -> None:
        self.problem, self.how, self.pull, self.length = problem, how, pull, length
        self.general_blocks, self.expert_blocks = general_blocks, expert_blocks
        shape = (len(general_blocks), 2, length, problem.width)
        self.general = nn.Parameter(torch.empty(shape).uniform_(-1, 1))
        self.experts: list[Expert] = []
        self.head = TorchHead(problem.width, "linear")

    def learn(self, task: TaskData) -> list[float]:
        """Train the general prompt, a new expert and the new rows."""
        expert = Expert(self.problem.width, len(self.expert_blocks), self.length)
        self.experts.append(expert)

        def represent(images: Tensor) -> tuple[Tensor, Tensor]:
            near = cosines(self.problem.query(images), expert.key[None]).mean()
            parts = self._parts(expert.prefixes[None])
            return self.problem.features(images, parts), self.pull * (1 - near)

        part = [self.general, *expert.parameters()]
        losses = fit_with_head(self.problem, task, self.how, self.head, part, represent)
        expert.requires_grad_(False)
        return losses

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures, each with the expert of the nearest key."""
        chosen = self.choose(self.problem.features(inputs))
        prefixes = torch.stack([expert.prefixes for expert in self.experts])[chosen]
        return self.head.logits(self.problem.features(inputs, self._parts(prefixes)))

    def choose(self, query: Tensor) -> Tensor:
        """Task [B] of the nearest key for queries [B, D]."""
        return cosines(query, torch.stack([expert.key for expert in self.experts])).argmax(dim=-1)

    def parameters_of(self, task: TaskData) -> int:
        """15,360 general and 23,808 of the task's expert for a ViT-B."""
        return self.general.numel() + sum(p.numel() for p in self.experts[-1].parameters())

    def _parts(self, expert: Tensor) -> Parts:
        """``expert`` is [B or 1, blocks, 2, length, D]."""
        prefixes: dict[int, Prefix] = {
            block: (self.general[i, 0][None], self.general[i, 1][None]) for i, block in enumerate(self.general_blocks)
        }
        prefixes |= {block: (expert[:, i, 0], expert[:, i, 1]) for i, block in enumerate(self.expert_blocks)}
        return Parts(prefixes=prefixes)
