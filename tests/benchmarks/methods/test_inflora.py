"""InfLoRA: the design of the down projection, and the subspace that is remembered."""

from __future__ import annotations

import numpy as np
import torch

from edge_zofc.benchmarks.methods import inflora


def test_inflora_designs_its_down_projection_outside_of_the_old_subspace() -> None:
    generator = torch.Generator().manual_seed(2)
    old_inputs = torch.randn(200, 3, generator=generator) @ torch.randn(3, 16, generator=generator)
    new_inputs = torch.randn(200, 16, generator=generator)
    memory = inflora.DualGpm(16)
    memory.update(old_inputs.T @ old_inputs, 0.9999)
    assert memory.basis.shape == (16, 3)
    down = inflora.design(memory.free_part(new_inputs.T @ new_inputs), 4)
    np.testing.assert_allclose(down @ down.T, np.eye(4) / 3, atol=1e-5)
    # Whatever up learns, an old task's input passes through down to nothing.
    assert float((old_inputs @ down.T).abs().max()) < 1e-3 * float(old_inputs.abs().max())


def test_inflora_remembers_what_is_free_once_more_than_half_is_taken() -> None:
    generator = torch.Generator().manual_seed(2)
    memory = inflora.DualGpm(16)
    wide = torch.randn(200, 10, generator=generator) @ torch.randn(10, 16, generator=generator)
    memory.update(wide.T @ wide, 0.99999999)
    assert not memory.avoids
    assert memory.basis.shape == (16, 6)
    moment = torch.eye(16)
    assert float((wide @ memory.free_part(moment)).abs().max()) < 1e-2
    one = torch.nn.functional.normalize(memory.basis[:, :1].T)
    memory.update(100 * one.T @ one, 0.99)
    assert memory.basis.shape == (16, 5)
    assert float((one @ memory.basis).abs().max()) < 1e-4


def test_inflora_remembers_the_fewest_directions_that_hold_the_share() -> None:
    """Singular values 3, 2, 1 have the energies 9, 4, 1 of 14: 64 %, 93 %, 100 %."""
    moment = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    for share, directions in ((0.6, 1), (0.9, 2), (0.95, 3)):
        memory = inflora.DualGpm(8)
        memory.update(moment, share)
        assert memory.basis.shape == (8, directions)
        memory.update(moment, share)  # what it holds already adds nothing
        assert memory.basis.shape == (8, directions)
    # Of a new task along an old direction (energy 4 of 5) only the rest needs room.
    memory.update(torch.diag(torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])), 0.75)
    assert memory.basis.shape == (8, 3)
    memory.update(torch.diag(torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])), 0.95)
    assert memory.basis.shape == (8, 4)
    assert memory.avoids
