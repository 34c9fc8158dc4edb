"""Writes an AdapterViT as an ONNX graph: ``images`` [B,3,S,S] and ``adapters`` [K,P] -> ``features`` [K,B,D].

The nodes are written one by one with ``onnx.helper``. What torch's exporter writes (``traced_graph``) is right too, but
slower: no operator for a whole attention, and every token of the last block is computed (benchmarks/results/COSTS.md).

Between the operators tokens are rows of a matrix [rows, D], so that a linear layer with its bias is one Gemm. The only
run-time shapes are K and B. They are read from the inputs once.

Where the class token alone is read at the end, the last block computes the query, the MLP and the adapter of that token
alone. Keys and values need every token. This saves most of that block.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto

from edge_zofc.export.adapters import pieces_at
from edge_zofc.export.linear import CONTRIB, quantised_linear
from edge_zofc.export.onnx_writer import OnnxWriter
from edge_zofc.export.vit import AdapterViT, gelu_form
from edge_zofc.storage.manifest import Precision


def write_graph(model: AdapterViT, precision: Precision, folder: Path) -> None:
    """Write ``backbone.onnx`` and ``backbone.onnx.data`` of ``model`` in ``precision`` to ``folder``."""
    graph = _Graph(model, precision)
    graph.build()
    graph.to.write_bundle(folder, model.image_side, model.layout.size, model.feature_size)


class _Graph:
    """The network's parts in the order in which they run; every method returns the name of its output."""

    def __init__(self, model: AdapterViT, precision: Precision) -> None:
        self.to = OnnxWriter()
        self.vit = model.timm_model
        self.layout = model.layout
        self.precision = precision
        self.float = np.float16 if precision == "fp16" else np.float32
        self.width = int(self.vit.embed_dim)
        self.tokens = int(self.vit.patch_embed.num_patches + self.vit.num_prefix_tokens)
        self.expanded = False  # whether rows are those of K * B pictures already
        self.unequal = False  # whether a block's branch has these and what it is added to has those of B

    def build(self) -> None:
        images, adapters = self.cast("images", "images_f"), self.cast("adapters", "adapters_f")
        count = self.to.node("Shape", ["adapters"], "adapter_count", start=0, end=1)
        sizes = [count, self.to.shape(-1, self.width)]
        self.per_adapter = self.to.node("Concat", sizes, "per_adapter_shape", axis=0)  # [K, -1, D]
        self.pieces = self.split_adapters(adapters)
        x = self.embedding(images)
        last = len(self.vit.blocks) - 1 if self.vit.global_pool == "token" else None
        for index, block in enumerate(self.vit.blocks):
            x = self.block(x, index, block, class_token_alone=index == last)
        pooled = self.pool(x)
        shaped = self.to.node(
            "Reshape", [pooled, self.per_adapter], "features" if self.float == np.float32 else "features_f"
        )
        if self.float != np.float32:
            self.to.node("Cast", [shaped], "features", to=TensorProto.FLOAT)

    def cast(self, value: str, name: str) -> str:
        """The value in the graph's own float type."""
        if self.float == np.float32:
            return value
        return self.to.node("Cast", [value], name, to=TensorProto.FLOAT16)

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        return self.to.constant(name, tensor.detach().numpy().astype(self.float))

    def rows(self, x: str, name: str) -> str:
        """[..., D] -> [rows, D]."""
        return self.to.node("Reshape", [x, self.to.shape(-1, self.width)], name)

    def sequences(self, x: str, width: int, name: str) -> str:
        """[rows, width] -> [pictures, T, width]."""
        return self.to.node("Reshape", [x, self.to.shape(-1, self.tokens, width)], name)

    def split_adapters(self, adapters: str) -> dict[str, str]:
        """Cut [K, P] into the pieces [K, *shape], biases as [K, 1, n]."""
        parts = self.layout.pieces
        sizes = self.to.constant("piece_sizes", np.array([piece.size for piece in parts], dtype=np.int64))
        flat = self.to.nodes_out("Split", [adapters, sizes], [f"{piece.name}.flat" for piece in parts], axis=1)
        return {
            piece.name: self.to.node(
                "Reshape", [name, self.to.shape(-1, *((1,) * (2 - len(piece.shape))), *piece.shape)], piece.name
            )
            for name, piece in zip(flat, parts, strict=True)
        }

    def embedding(self, images: str) -> str:
        """[B, 3, S, S] -> rows [B * T, D]: a patch is a row of its pixels, so the convolution is a Gemm."""
        vit, embed = self.vit, self.vit.patch_embed
        (high, wide), patch = embed.grid_size, embed.patch_size[0]
        cut = self.to.node("Reshape", [images, self.to.shape(-1, 3, high, patch, wide, patch)], "patches_cut")
        cut = self.to.node("Transpose", [cut], "patches_moved", perm=[0, 2, 4, 1, 3, 5])
        cut = self.to.node("Reshape", [cut, self.to.shape(-1, 3 * patch * patch)], "patches")
        kernel = embed.proj.weight.reshape(self.width, -1)
        x = self.float_linear(cut, kernel, embed.proj.bias, "patch_embed")
        x = self.norm(x, embed.norm, "patch_embed.norm")
        x = self.to.node("Reshape", [x, self.to.shape(-1, high * wide, self.width)], "patch_tokens")
        first, positions = self.first_tokens()
        if positions is not None:
            x = self.to.node("Add", [x, self.weight("pos_embed", positions)], "patch_positions")
        if first is not None:
            count = self.to.node("Shape", ["images"], "image_count", start=0, end=1)
            sizes = [count, self.to.shape(first.shape[1], self.width)]
            shape = self.to.node("Concat", sizes, "first_tokens_shape", axis=0)
            start = self.to.node("Expand", [self.weight("first_tokens", first), shape], "first_tokens_all")
            x = self.to.node("Concat", [start, x], "tokens", axis=1)
        return self.norm(self.rows(x, "token_rows"), vit.norm_pre, "norm_pre")

    def first_tokens(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Class and register tokens with their positions added [1, n, D], and the patches' positions [1, hw, D]."""
        vit = self.vit
        tokens = [token for token in (vit.cls_token, vit.reg_token) if token is not None]
        first = torch.cat(tokens, dim=1) if tokens else None
        if vit.pos_embed is None or vit.no_embed_class or first is None:
            return first, vit.pos_embed
        return first + vit.pos_embed[:, : first.shape[1]], vit.pos_embed[:, first.shape[1] :]

    def block(self, x: str, index: int, block: Any, class_token_alone: bool) -> str:
        """Rows of all tokens -> the same, or the class tokens' rows alone; from there on T is 1."""
        name = f"blocks.{index}"
        n = self.film(self.norm(x, block.norm1, f"{name}.norm1"), index, "norm1.")
        if class_token_alone:
            mixed = self.attention_of_class_token(n, block.attn, f"{name}.attn")
            x = self.class_tokens(x, f"{name}.class_token")
            self.tokens = 1
        else:
            mixed = self.attention(n, block.attn, f"{name}.attn")
        x = self.residual(x, mixed, block.ls1, f"{name}.attn")
        n = self.film(self.norm(x, block.norm2, f"{name}.norm2"), index, "norm2.")
        x = self.residual(x, self.mlp(n, block.mlp, f"{name}.mlp"), block.ls2, f"{name}.mlp")
        has_bottleneck = index in self.layout.blocks and self.layout.kind == "bottleneck"
        return self.bottleneck(x, n, index) if has_bottleneck else x

    def residual(self, x: str, branch: str, scale: Any, name: str) -> str:
        if not isinstance(scale, torch.nn.Identity):
            branch = self.to.node("Mul", [branch, self.weight(f"{name}.gamma", scale.gamma)], f"{name}.scaled")
        if not self.unequal:
            return self.to.node("Add", [x, branch], f"{name}.residual")
        self.unequal = False
        branch = self.to.node("Reshape", [branch, self.per_adapter], f"{name}.per_adapter")
        return self.rows(self.to.node("Add", [x, branch], f"{name}.residual"), f"{name}.residual_rows")

    def attention(self, n: str, attention: Any, name: str) -> str:
        qkv = self.linear(n, attention.qkv.weight, None, f"{name}.qkv")
        qkv = self.sequences(qkv, 3 * self.width, f"{name}.qkv_sequences")
        sizes = self.to.constant("qkv_sizes", np.full(3, self.width, dtype=np.int64))
        inputs = self.to.nodes_out("Split", [qkv, sizes], [f"{name}.{letter}" for letter in "qkv"], axis=2)
        return self.mixed(inputs, attention, name)

    def attention_of_class_token(self, n: str, attention: Any, name: str) -> str:
        """Rows of all tokens -> the attention's output for the class tokens alone, one row a picture."""
        weight = attention.qkv.weight
        query = self.linear(self.class_tokens(n, f"{name}.class_token"), weight[: self.width], None, f"{name}.q")
        keys = self.linear(n, weight[self.width :], None, f"{name}.kv")
        keys = self.sequences(keys, 2 * self.width, f"{name}.kv_sequences")
        sizes = self.to.constant("kv_sizes", np.full(2, self.width, dtype=np.int64))
        inputs = self.to.nodes_out("Split", [keys, sizes], [f"{name}.{letter}" for letter in "kv"], axis=2)
        query = self.to.node("Reshape", [query, self.to.shape(-1, 1, self.width)], f"{name}.q_sequences")
        return self.mixed([query, *inputs], attention, name)

    def class_tokens(self, x: str, name: str) -> str:
        """Rows of all tokens -> the first row of each picture, [pictures, D]."""
        first = self.to.constant("class_token_place", np.array([0], dtype=np.int64))
        tokens = self.sequences(x, self.width, f"{name}.sequences")
        return self.rows(self.to.node("Gather", [tokens, first], f"{name}.gathered", axis=1), name)

    def mixed(self, inputs: list[str], attention: Any, name: str) -> str:
        """The attention's output rows for queries, keys and values [pictures, tokens, D]."""
        if attention.qkv.bias is not None:
            # The operator adds this while it rearranges heads, which saves a pass over the activations.
            inputs.append(self.weight(f"{name}.qkv.bias", attention.qkv.bias))
        mixed = self.to.node(
            "MultiHeadAttention", inputs, f"{name}.mixed", CONTRIB,
            num_heads=int(attention.num_heads), scale=float(attention.scale),
        )  # fmt: skip
        return self.linear(
            self.rows(mixed, f"{name}.mixed_rows"), attention.proj.weight, attention.proj.bias, f"{name}.proj"
        )

    def mlp(self, n: str, mlp: Any, name: str) -> str:
        hidden = self.linear(n, mlp.fc1.weight, mlp.fc1.bias, f"{name}.fc1")
        hidden = self.to.node("Gelu", [hidden], f"{name}.gelu", approximate=str(gelu_form(mlp.act)))
        return self.linear(hidden, mlp.fc2.weight, mlp.fc2.bias, f"{name}.fc2")

    def film(self, n: str, index: int, place: str) -> str:
        """Scale and shift the rows of a norm; the first film turns rows of B pictures into rows of K * B."""
        if index not in self.layout.blocks or self.layout.kind != "film":
            return n
        name = f"blocks.{index}.{place}film"
        if self.expanded:
            n = self.to.node("Reshape", [n, self.per_adapter], f"{name}.in")
        scale, shift = (self.pieces[piece.name] for piece in pieces_at(self.layout, index, place))
        factor = self.to.node("Add", [scale, self.to.constant("one", np.array(1, dtype=self.float))], f"{name}.factor")
        n = self.to.node("Mul", [n, factor], f"{name}.scaled")  # [1 or K, rows, D] x [K, 1, D]
        n = self.to.node("Add", [n, shift], f"{name}.shifted")
        self.unequal, self.expanded = not self.expanded, True
        return self.rows(n, f"{name}.rows")

    def bottleneck(self, x: str, n: str, index: int) -> str:
        """Add the adapters' output to ``x`` rows; the first one turns rows of B pictures into rows of K * B."""
        name = f"blocks.{index}.adapter"
        if self.expanded:
            n = self.to.node("Reshape", [n, self.per_adapter], f"{name}.in")
            x = self.to.node("Reshape", [x, self.per_adapter], f"{name}.x")
        down, down_bias, up, up_bias = (self.pieces[piece.name] for piece in pieces_at(self.layout, index))
        down = self.to.node("Transpose", [down], f"{name}.down", perm=[0, 2, 1])
        hidden = self.to.node("MatMul", [n, down], f"{name}.down_product")  # [1 or K, rows, D] x [K, D, r]
        hidden = self.to.node("Add", [hidden, down_bias], f"{name}.hidden")
        hidden = self.to.node("Gelu", [hidden], f"{name}.gelu")
        # Scaling the small weights instead of the output would round differently from the torch model.
        up = self.to.node("Transpose", [up], f"{name}.up", perm=[0, 2, 1])
        out = self.to.node("MatMul", [hidden, up], f"{name}.up_product")
        out = self.to.node("Add", [out, up_bias], f"{name}.out")
        scale = self.to.constant("adapter_scale", np.array(self.layout.scale, dtype=self.float))
        out = self.to.node("Mul", [out, scale], f"{name}.scaled")
        self.expanded = True
        return self.rows(self.to.node("Add", [x, out], f"{name}.sum"), f"{name}.rows")

    def pool(self, x: str) -> str:
        """Rows [K * B * T, D], T = 1 where the class token is read, -> [K * B, D]."""
        vit = self.vit
        if vit.global_pool == "token":
            x = self.norm(x, vit.norm, "norm")  # the last block has left the class tokens alone
        else:
            x = self.sequences(self.norm(x, vit.norm, "norm"), self.width, "last_tokens")
            if not vit.pool_include_prefix and vit.num_prefix_tokens:
                ends = (self.to.shape(vit.num_prefix_tokens), self.to.shape(self.tokens), self.to.shape(1))
                x = self.to.node("Slice", [x, *ends], "last_patches")
            x = self.to.node("ReduceMean", [x, self.to.shape(1)], "average", keepdims=0)
        return self.norm(x, vit.fc_norm, "fc_norm")

    def norm(self, x: str, norm: Any, name: str) -> str:
        if isinstance(norm, torch.nn.Identity):
            return x
        weights = [self.weight(f"{name}.weight", norm.weight), self.weight(f"{name}.bias", norm.bias)]
        return self.to.node("LayerNormalization", [x, *weights], name, axis=-1, epsilon=float(norm.eps))

    def float_linear(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None, name: str) -> str:
        inputs = [x, self.weight(f"{name}.weight", weight.T)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias))
        return self.to.node("Gemm", inputs, name)

    def linear(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None, name: str) -> str:
        """Rows [n, in] -> [n, out] with ``weight`` [out, in], by the precision's own operator."""
        if self.precision in ("fp32", "fp16"):
            return self.float_linear(x, weight, bias, name)
        bias_name = self.weight(f"{name}.bias", bias) if bias is not None else ""
        return quantised_linear(self.to, self.precision, x, weight.detach().numpy(), name, bias_name)
