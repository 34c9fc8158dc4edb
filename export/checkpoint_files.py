"""The tensors in a checkpoint file, or in the shards that an index names; any other file is told for what it is."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from edge_zofc.errors import InputError

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# For a person to run: this package opens no pickle.
_CONVERT = (
    "import sys, torch as t, safetensors.torch as s; d = t.load(sys.argv[1], 'cpu', weights_only=True); "
    "d = next((d[k] for k in ('teacher', 'state_dict', 'model') if k in d), d); "
    "s.save_file({k: v.clone().contiguous() for k, v in d.items() if hasattr(v, 'shape')}, sys.argv[2])"
)
_CONVERT_SCRIPT = (
    "import sys, torch as t, safetensors.torch as s; d = t.jit.load(sys.argv[1], 'cpu').state_dict(); "
    "s.save_file({k: v.clone().contiguous() for k, v in d.items()}, sys.argv[2])"
)
_INDEX = ".safetensors.index.json"
_FOREIGN: tuple[tuple[bytes, tuple[str, ...], str], ...] = (
    (b"", (".npz", ".npy"), "holds numpy arrays, with JAX's names"),
    (b"GGUF", (".gguf",), "is a GGUF file for llama.cpp"),
    (b"", (".onnx",), "is an ONNX graph, whose weights cannot be trained or given an adapter"),
    (b"\x89HDF", (".h5", ".hdf5", ".keras"), "holds the weights of Keras"),
    (b"", (".msgpack",), "holds the weights of Flax"),
    (b"", (".pb", ".tflite", ".engine", ".trt", ".mlmodel"), "is a compiled graph"),
)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a file, or of the shards of an index, and the SHA-256 of the bytes. Raises InputError."""
    if path.name.endswith(_INDEX):
        return _from_shards(path)
    if path.is_dir():
        found = sorted(inner.name for inner in path.iterdir() if inner.name.endswith((".safetensors", _INDEX)))
        inside = f"it has {', '.join(found[:3])}" if found else "it has none"
        raise InputError(f"The checkpoint {path} is a folder; name the .safetensors file in it ({inside}).")
    raw = _bytes_of(path)
    return parse_tensors(raw, str(path)), hashlib.sha256(raw).hexdigest()


def _bytes_of(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise InputError(f"The checkpoint {path} is no file; name a .safetensors file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The checkpoint {path} cannot be read ({error.strerror}).") from error


def _from_shards(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of several files that lie beside an index of them."""
    try:
        names = sorted(set(json.loads(_bytes_of(path))["weight_map"].values()))
        shards = [path.with_name(name) for name in names if Path(name).name == name]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not an index of safetensors files ({type(error).__name__}: {error}).") from error
    if len(shards) < len(names) or not shards:
        raise InputError(f"{path} names no file or one that does not lie beside it; download the checkpoint again.")
    digest, tensors = hashlib.sha256(), dict[str, torch.Tensor]()
    for shard in shards:
        raw = _bytes_of(shard)
        digest.update(raw)
        tensors |= parse_tensors(raw, str(shard))
    return tensors, digest.hexdigest()


def parse_tensors(raw: bytes, origin: str) -> dict[str, torch.Tensor]:
    """The tensors in the bytes of a safetensors file. Raises InputError that says what it is instead."""
    try:
        return load_tensors(raw)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(_not_safetensors(raw, origin, error)) from error


def _not_safetensors(raw: bytes, origin: str, error: Exception) -> str:
    source = Path(origin)
    if raw.startswith(b"version https://git-lfs"):
        return f"{origin} is a Git LFS pointer, not the weights; fetch the file itself with 'git lfs pull'."
    for sign, suffixes, what in _FOREIGN:
        if (sign and raw.startswith(sign)) or source.suffix.lower() in suffixes:
            return f"{origin} {what}; give the safetensors file of the same model, or take timm's with --pretrained."
    if source.name.endswith(".bin.index.json"):
        return (
            f"{origin} is an index of PyTorch pickles; give the .safetensors files' own index, or convert each pickle."
        )
    if raw.startswith(b"PK\x03\x04") and b"/code/__torch__" in raw:
        files = shlex.join([str(source), str(source.with_suffix(".safetensors"))])
        return (
            f"{origin} is a TorchScript program; take its weights once, where PyTorch is installed and if you trust "
            f'it: python -c "{_CONVERT_SCRIPT}" {files}'
        )
    if raw.startswith(_PICKLES) or source.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"):
        files = shlex.join([str(source), str(source.with_suffix(".safetensors"))])
        return (
            f"{origin} is no safetensors file but a PyTorch pickle, which may run a program when it is opened; "
            f'convert it once where PyTorch is installed: python -c "{_CONVERT}" {files}'
        )
    return f"{origin} is not a safetensors file ({error})."
