"""Checkpoints as people have them: other prefixes, other parts beside the backbone, other files altogether."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from edge_zofc.errors import InputError
from edge_zofc.export.backbones import BackboneRequest, LoadedBackbone, load_backbone
from edge_zofc.export.checkpoints import read_checkpoint

NAME = "vit_tiny_patch16_224"
State = dict[str, torch.Tensor]


def weights(name: str = NAME, seed: int = 0, **options: object) -> State:
    """Random weights of a model for 32 pixels in timm's names, its classifier left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, **{"img_size": 32, "num_classes": 0, **options})
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def state() -> State:
    return weights(depth=2)


def load(path: Path, state: State, name: str = NAME, depth: int | None = 2, size: int = 32) -> LoadedBackbone:
    save_file({key: value.clone().contiguous() for key, value in state.items()}, path / "w.safetensors")
    return load_backbone(BackboneRequest(name, checkpoint=path / "w.safetensors", img_size=size, depth=depth))


def behind(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def same(loaded: LoadedBackbone, state: State) -> bool:
    found = loaded.model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in found)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "backbone.", "encoder.", "_orig_mod.", "ema.", "teacher.backbone.", "vit.",
     "module._orig_mod.model.encoder.", "state_dict.module.base_encoder.", "_fsdp_wrapped_module."],
)  # fmt: skip
def test_names_behind_any_prefix_are_found_and_the_prefix_is_told(tmp_path: Path, state: State, prefix: str) -> None:
    """FAULTS C8."""
    loaded = load(tmp_path, behind(prefix, state))
    assert same(loaded, state)
    assert any(f"begin with '{prefix}'" in note for note in loaded.notes) is bool(prefix)


def test_wrappers_in_the_middle_of_names_groups_of_blocks_and_old_layer_scales_are_renamed(tmp_path: Path) -> None:
    """FAULTS C8: torch.compile of single blocks, DINOv2's training, DeiT III."""
    name = "deit3_small_patch16_224"
    state = weights(name, depth=2)
    renamed = {
        key.replace("blocks.0.", "blocks.0.0._orig_mod.")
        .replace("blocks.1.", "blocks.1.1.module.")
        .replace(".ls1.gamma", ".gamma_1")
        .replace(".ls2.gamma", ".gamma_2"): value
        for key, value in state.items()
    }
    assert "blocks.1.1.module.gamma_2" in renamed
    assert same(load(tmp_path, renamed, name), state)


@pytest.mark.parametrize(
    "extra",
    [["head.weight", "head.bias", "head_dist.weight"], ["pre_logits.fc.weight", "fc.weight"], ["mask_token"],
     ["decoder_blocks.0.norm1.weight", "decoder_pos_embed", "decoder_pred.bias", "mask_token"],
     ["dino_head.mlp.0.weight", "ibot_head.last_layer.weight_v"],
     ["fc_norm.weight", "fc_norm.bias", "classifier.bias"]],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "model."])
def test_parts_beside_the_backbone_are_left_out_and_told(
    tmp_path: Path, state: State, prefix: str, extra: list[str]
) -> None:
    """FAULTS C8: classifiers, a decoder, heads of self-supervised training."""
    loaded = load(tmp_path, behind(prefix, {**state, **{key: torch.ones(3) for key in extra}}))
    assert same(loaded, state)
    (note,) = (note for note in loaded.notes if "left out" in note)
    assert f"{len(extra)} tensors beside the backbone" in note
    assert extra[0].split(".")[0] in note


@pytest.mark.parametrize(
    ("good", "other"),
    [("teacher.backbone.", "student.backbone."), ("ema.", "model."), ("model_ema.module.", ""),
     ("module.base_encoder.", "module.momentum_encoder."), ("", "momentum_encoder."), ("model.teacher.", "model.")],
)  # fmt: skip
def test_of_two_backbones_the_teacher_the_average_or_the_trained_one_is_taken(
    tmp_path: Path, state: State, good: str, other: str
) -> None:
    """FAULTS C8: the other one is told as left out."""
    loaded = load(tmp_path, {**behind(good, state), **behind(other, weights(seed=1, depth=2))})
    assert same(loaded, state)
    assert any(f"{len(state)} tensors beside the backbone" in note for note in loaded.notes)


def test_a_checkpoint_with_fc_norm_in_the_place_of_norm_pools_the_average(tmp_path: Path) -> None:
    """FAULTS C8: MAE as it is fine-tuned."""
    state = weights(depth=2, global_pool="avg")
    assert "norm.weight" not in state
    loaded = load(tmp_path, state)
    assert same(loaded, state)
    assert loaded.info.pooling == "avg"


def test_dinov2s_registers_get_timms_names_and_places(tmp_path: Path) -> None:
    """FAULTS C8: the class token's place in DINOv2's table becomes part of the token."""
    name = "vit_small_patch14_reg4_dinov2"
    state = weights(name, img_size=28, depth=2)
    place = torch.randn(1, 1, 384)
    theirs = {**state, "cls_token": state["cls_token"] - place, "mask_token": torch.zeros(1, 384)}
    theirs["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    theirs["register_tokens"] = theirs.pop("reg_token")
    found = load(tmp_path, theirs, name, size=28).model.state_dict()
    assert found.keys() == state.keys()
    for key in state:
        torch.testing.assert_close(found[key], state[key], msg=key)


@pytest.mark.parametrize(
    ("changes", "depth", "sentence"),
    [
        ({"embed_dim": 384}, 2, r"width 384, vit_tiny_patch16_224 has width 192; .*such as a vit_small"),
        ({"embed_dim": 96}, 2, "width 96, vit_tiny_patch16_224 has width 192; give --backbone a model of width 96"),
        ({"patch_size": 8}, 2, "patches of 8 pixels, vit_tiny_patch16_224 of 16; .*patch8"),
        ({"depth": 6}, None, "has 6 blocks, 12 of vit_tiny_patch16_224 are asked for; give --depth 6"),
        ({"depth": 13}, None, "has 13 blocks, vit_tiny_patch16_224 has 12; .*of 13 blocks"),
    ],
)
def test_another_size_is_told_with_both_numbers(
    tmp_path: Path, changes: dict[str, int], depth: int | None, sentence: str
) -> None:
    """FAULTS C8: a wrong width is no question of the position table's grid."""
    with pytest.raises(InputError, match=sentence):
        load(tmp_path, weights(**{"depth": 2, **changes}), depth=depth)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            "vit.embeddings.patch_embeddings.projection.weight",
            "names of Hugging Face transformers, not timm's.*--pretr",
        ),
        ("encoder.layer.0.attention.attention.query.weight", "names of Hugging Face transformers, not timm's"),
        ("vision_model.embeddings.patch_embedding.weight", "names of Hugging Face transformers' CLIP"),
        ("conv_proj.weight", "names of torchvision"),
        ("visual.conv1.weight", "names of OpenAI's CLIP"),
        ("register_tokens", "has register tokens, which vit_tiny_patch16_224 has not; .*reg4"),
        ("reg_token", "has register tokens, which vit_tiny_patch16_224 has not; .*reg4"),
        ("blocks.0.attn.relative_position_bias_table", "unknown blocks.0.attn.relative"),
    ],
)
def test_other_libraries_names_and_unsupported_parts_are_told(
    tmp_path: Path, state: State, key: str, sentence: str
) -> None:
    """FAULTS C8."""
    own = state if key.startswith(("reg", "blocks")) else {}
    with pytest.raises(InputError, match=sentence):
        load(tmp_path, {**own, key: torch.ones(3)})


@pytest.mark.parametrize("name", ["w.pth", "pytorch_model.bin", "it's mine.pt"])
def test_a_pickle_gets_the_command_that_converts_it_and_the_command_works(
    tmp_path: Path, state: State, name: str
) -> None:
    """FAULTS C8: ``.pth`` was told as "header too large"."""
    path = tmp_path / name
    torch.save({"epoch": 3, "model": behind("module.", state)}, path)
    with pytest.raises(InputError, match="PyTorch pickle, which may run a program") as caught:
        load_backbone(BackboneRequest(NAME, checkpoint=path, img_size=32, depth=2))
    command = shlex.split(str(caught.value).partition("is installed: ")[2])
    assert command[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *command[1:]], check=True)
    request = BackboneRequest(NAME, checkpoint=path.with_suffix(".safetensors"), img_size=32, depth=2)
    assert same(load_backbone(request), state)


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("w.npz", b"PK\x03\x04", "JAX's names; .* take timm's with --pretrained"),
        ("w.pt", b"", "PyTorch pickle"),
        ("w.safetensors", b"<html>", "not a safetensors file"),
        ("folder", None, "is a folder; name the .safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, raw: bytes | None, sentence: str) -> None:
    """FAULTS C8."""
    if raw is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=sentence):
        load_backbone(BackboneRequest(NAME, checkpoint=tmp_path / name))


def test_the_shards_of_an_index_are_one_checkpoint(tmp_path: Path, state: State) -> None:
    """FAULTS C8: large checkpoints come in several files."""
    keys = sorted(state)
    parts = {"model-00001-of-00002.safetensors": keys[:20], "model-00002-of-00002.safetensors": keys[20:]}
    for name, some in parts.items():
        save_file({key: state[key].clone().contiguous() for key in some}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {key: n for n, some in parts.items() for key in some}}))
    loaded = load_backbone(BackboneRequest(NAME, checkpoint=index, img_size=32, depth=2))
    assert same(loaded, state)
    raw = b"".join((tmp_path / name).read_bytes() for name in parts)
    assert loaded.info.weights_sha256 == hashlib.sha256(raw).hexdigest()
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"00002-of-00002.safetensors cannot be read \(No such file"):
        load_backbone(BackboneRequest(NAME, checkpoint=index, img_size=32, depth=2))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "is not an index"), ("[]", "is not an index"), ('{"weight_map": {"a": 5}}', "is not an index"),
     ('{"weight_map": {"a": "../b.safetensors"}}', "does not lie beside it"), ('{"weight_map": {}}', "names no file"),
     ("[" * 100_000, "is not an index")],
)  # fmt: skip
def test_an_index_that_names_no_shards_beside_it_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """FAULTS C8."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_checkpoint(index)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [("pytorch_model.bin.index.json", b'{"weight_map": {}}', "is an index of PyTorch pickles"),
     ("m.gguf", b"GGUF\3\0", "is a GGUF file"), ("renamed.safetensors", b"GGUF\3\0\0\0\0", "is a GGUF file"),
     ("m.onnx", b"\x08\x07", "is an ONNX graph"), ("m.npz", b"PK\3\4", "numpy arrays"),
     ("m.h5", b"\x89HDF\r\n\x1a\n", "weights of Keras"), ("m.msgpack", b"\x81", "weights of Flax")],
)  # fmt: skip
def test_weights_of_other_programs_are_told_for_what_they_are(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    """FAULTS C8: one sentence with the way out."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as found:
        read_checkpoint(tmp_path / name)
    assert ";" in str(found.value)


def test_a_torchscript_program_is_told_with_the_line_that_takes_its_weights(tmp_path: Path, state: State) -> None:
    """FAULTS C8: the line for pickles would fail on it."""
    path = tmp_path / "model.pt"
    model = timm.create_model(NAME, img_size=32, num_classes=0, depth=2)
    model.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model.eval(), torch.zeros(1, 3, 32, 32), check_trace=False).save(path)
    with pytest.raises(InputError, match="is a TorchScript program") as found:
        read_checkpoint(path)
    command = shlex.split(str(found.value).split("python -c ")[1])
    subprocess.run([sys.executable, "-W", "ignore", "-c", *command], check=True)
    assert same(
        load_backbone(BackboneRequest(NAME, checkpoint=tmp_path / "model.safetensors", img_size=32, depth=2)), state
    )


def test_a_folder_is_answered_with_the_names_of_what_lies_in_it(tmp_path: Path) -> None:
    """FAULTS C8."""
    with pytest.raises(InputError, match=r"is a folder; name the .safetensors file in it \(it has none\)"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"it has model.safetensors\)"):
        read_checkpoint(tmp_path)
    with pytest.raises(InputError, match="is no file"):
        read_checkpoint(Path("/dev/null"))
