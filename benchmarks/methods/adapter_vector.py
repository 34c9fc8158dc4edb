"""ZO-FC's adapter as parameters of torch: one for each piece of the bundle's layout, on a ViT and on a CNN alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_zofc.export.adapters import initial_adapter
from edge_zofc.storage.manifest import AdapterLayout


class AdapterVector(nn.Module):
    """The flat vector [P] of ``layout``, the identity at the start. ``up_only``: the up-projections alone learn."""

    def __init__(self, layout: AdapterLayout, seed: int, up_only: bool = False) -> None:
        super().__init__()
        start = torch.from_numpy(initial_adapter(layout, seed))
        self.pieces = nn.ParameterList(
            nn.Parameter(
                start[piece.offset : piece.offset + piece.size].clone(),
                requires_grad=not up_only or ".up." in piece.name,
            )
            for piece in layout.pieces
        )

    def forward(self) -> Tensor:
        """The vector."""
        return torch.cat(list(self.pieces))

    def trained(self) -> list[nn.Parameter]:
        """The pieces that learning moves."""
        return [piece for piece in self.pieces if piece.requires_grad]
