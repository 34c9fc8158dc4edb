"""Four heads in closed form on frozen features: the baselines that a learning method has to beat.

    simplecil   class means and cosine (SimpleCIL, arXiv 2303.07338)
    ridge       least squares to one-hot targets on a running Gram matrix: W = (G + lambda I)^-1 sum f y^T
    ranpac      ridge on M random ReLU features (RanPAC, arXiv 2307.02251, without its first-task adapter)
    lda         Gaussian classes with one covariance: streaming LDA (arXiv 1909.01520) with OAS shrinkage

lambda is chosen by the squared error on a validation part of the first task. RanPAC chooses it so on each task. The
accuracy on that part cannot choose it: it is 100 % for a wide range of lambdas.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edge_zofc.benchmarks.methods.heads import ClassMeans, cosines
from edge_zofc.benchmarks.methods.problem import Problem, TaskData, validation_task

LAMBDAS = tuple(10.0**power for power in range(-3, 6))


class SimpleCil:
    """Class means; nothing is trained."""

    frozen = True

    def __init__(self, problem: Problem) -> None:
        self.problem, self.means = problem, ClassMeans(problem.width)

    def learn(self, task: TaskData) -> list[float]:
        """One pass over the pictures."""
        self.means.add(*self.problem.frozen_features(task.train), task.classes_seen)
        return []

    def logits(self, inputs: Tensor) -> Tensor:
        """Cosines [B, C] of features [B, D]."""
        return cosines(inputs, self.means.rows())

    def parameters_of(self, task: TaskData) -> int:
        """None."""
        return 0


class Ridge:
    """Ridge regression to one-hot targets; ``random_features`` M > 0 makes it RanPAC.

    State: G float64 [M or D, same], class sums [C, M or D]; features are scaled to length sqrt(D) first,
    so that lambda means the same on every backbone.
    """

    frozen = True

    def __init__(self, problem: Problem, random_features: int = 0) -> None:
        self.problem = problem
        self.projection = torch.randn(problem.width, random_features) / problem.width**0.5
        size = random_features or problem.width
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.sums = torch.zeros(0, size, dtype=torch.float64)
        self.weights = torch.zeros(size, 0, dtype=torch.float64)
        self.ridge: float | None = None

    def expand(self, features: Tensor) -> Tensor:
        """[B, D] -> float64 [B, M or D]."""
        inputs = scaled(features)
        return (torch.relu(inputs @ self.projection) if self.projection.numel() else inputs).double()

    def learn(self, task: TaskData) -> list[float]:
        """One pass over the pictures and one solve."""
        found, labels = self.problem.frozen_features(task.train)
        inputs = self.expand(found)
        targets = functional.one_hot(labels, task.classes_seen).double()
        if self.ridge is None:
            paths = {sample.path for sample in validation_task(task).test}
            held = torch.tensor([sample.path in paths for sample in task.train])
            self.ridge = choose_ridge(inputs, targets, held)
        self.gram += inputs.T @ inputs
        self.sums = torch.cat([self.sums, self.sums.new_zeros(task.classes_seen - len(self.sums), len(self.gram))])
        self.sums += targets.T @ inputs
        self.weights = solve(self.gram, self.sums.T, self.ridge)
        return []

    def logits(self, inputs: Tensor) -> Tensor:
        """Scores [B, C] of features [B, D]."""
        return self.expand(inputs) @ self.weights

    def parameters_of(self, task: TaskData) -> int:
        """None: the projection is random and stays so."""
        return 0


class Lda:
    """Linear discriminant analysis: class means and one within-class covariance, shrunk to the identity.

    The state is the sum of f f^T, class sums and counts. The scatter within classes is that sum less
    sum_c n_c m_c m_c^T. How much to shrink follows from the matrix itself (``oas``).
    """

    frozen = True

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.gram = torch.zeros(problem.width, problem.width, dtype=torch.float64)
        self.sums = torch.zeros(0, problem.width, dtype=torch.float64)
        self.counts = torch.zeros(0, dtype=torch.float64)
        self.weights, self.bias = self.sums.T, self.counts

    def learn(self, task: TaskData) -> list[float]:
        """One pass over the pictures and one solve."""
        found, labels = self.problem.frozen_features(task.train)
        inputs = scaled(found).double()
        more = task.classes_seen - len(self.sums)
        self.sums = torch.cat([self.sums, self.sums.new_zeros(more, inputs.shape[1])])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(more)])
        self.gram += inputs.T @ inputs
        self.sums.index_add_(0, labels, inputs)
        self.counts += torch.bincount(labels, minlength=task.classes_seen)
        means = self.sums / self.counts.clamp(min=1)[:, None]
        freedom = max(1.0, float(self.counts.sum()) - len(means))
        covariance = oas((self.gram - self.sums.T @ means) / freedom, freedom)
        self.weights = torch.cholesky_solve(means.T, torch.linalg.cholesky(covariance))
        self.bias = -(means.T * self.weights).sum(dim=0) / 2
        return []

    def logits(self, inputs: Tensor) -> Tensor:
        """Log-likelihoods up to a constant, [B, C], of features [B, D]."""
        return scaled(inputs).double() @ self.weights + self.bias

    def parameters_of(self, task: TaskData) -> int:
        """None."""
        return 0


def oas(covariance: Tensor, freedom: float) -> Tensor:
    """``covariance`` [D, D] from ``freedom`` degrees of freedom, shrunk towards mean variance times identity.

    Oracle approximating shrinkage, Chen, Wiesel, Eldar and Hero 2010 (arXiv 0907.4698), equation 23.
    """
    size = len(covariance)
    trace, square = float(covariance.trace()), float(covariance.square().sum())
    above = (1 - 2 / size) * square + trace**2
    below = (freedom + 1 - 2 / size) * (square - trace**2 / size)
    share = 1.0 if below <= 0 else min(1.0, above / below)
    target = torch.eye(size, dtype=covariance.dtype) * (trace / size + 1e-12)
    return (1 - share) * covariance + share * target


def scaled(features: Tensor) -> Tensor:
    """Features [B, D] at length sqrt(D), so that a constant means the same on every backbone."""
    return functional.normalize(features, dim=-1) * math.sqrt(features.shape[-1])


def choose_ridge(inputs: Tensor, targets: Tensor, held: Tensor) -> float:
    """The lambda of LAMBDAS with the least squared error on the rows that ``held`` bool [N] marks."""
    gram, sums = inputs[~held].T @ inputs[~held], inputs[~held].T @ targets[~held]
    errors = [float((inputs[held] @ solve(gram, sums, ridge) - targets[held]).square().mean()) for ridge in LAMBDAS]
    return LAMBDAS[min(range(len(LAMBDAS)), key=errors.__getitem__)]


def solve(gram: Tensor, sums: Tensor, ridge: float) -> Tensor:
    """(G + lambda I)^-1 sums, by Cholesky."""
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    return torch.cholesky_solve(sums, factor)
