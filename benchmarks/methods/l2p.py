"""L2P (arXiv 2112.08654): a pool of prompts, and each picture chooses its own by their keys.

A picture takes two forward passes: one of the frozen model for the query, which is compared with the keys, and one with
the chosen prompts. The classifier sees the outputs of the prompts, not the class token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_zofc.benchmarks.methods.heads import TorchHead, cosines
from edge_zofc.benchmarks.methods.problem import Problem, TaskData
from edge_zofc.benchmarks.methods.training import Training, fit_with_head
from edge_zofc.benchmarks.methods.vit_parts import Parts


class PromptPool(nn.Module):
    """``size`` prompts [length, D] with a key [D] each: 46,080 parameters for 10 of length 5 and D = 768."""

    def __init__(self, width: int, size: int, length: int, top: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(size, length, width).uniform_(-1, 1))
        self.keys = nn.Parameter(torch.empty(size, width).uniform_(-1, 1))
        self.top = top

    def choose(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """For queries [B, D] the ``top`` nearest prompts as tokens [B, top * length, D].

        Also the mean over the batch of the sum of the cosines of their keys.
        """
        near, chosen = cosines(query, self.keys).topk(self.top, dim=-1)
        return self.prompts[chosen].flatten(1, 2), near.sum(dim=-1).mean()


class L2p:
    """The pool, and a linear head on the mean of the prompts' outputs. ``pull`` weighs the keys' term."""

    frozen = False

    def __init__(
        self, problem: Problem, how: Training, size: int = 10, length: int = 5, top: int = 5, pull: float = 0.1
    ) -> None:
        self.problem, self.how, self.pull = problem, how, pull
        self.pool = PromptPool(problem.width, size, length, top)
        self.head = TorchHead(problem.width, "linear")

    def learn(self, task: TaskData) -> list[float]:
        """Train pool and new rows."""
        pool = list(self.pool.parameters())
        return fit_with_head(self.problem, task, self.how, self.head, pool, self._represent)

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, C] for pictures."""
        return self.head.logits(self._represent(inputs)[0])

    def parameters_of(self, task: TaskData) -> int:
        """The pool's, the same on every task."""
        return sum(p.numel() for p in self.pool.parameters())

    def _represent(self, images: Tensor) -> tuple[Tensor, Tensor]:
        query = self.problem.query(images)
        prompts, near = self.pool.choose(query)
        outputs = self.problem.tokens(images, Parts(prompts=prompts))
        return outputs[:, : prompts.shape[1]].mean(dim=1), -self.pull * near
