"""Where a backbone comes from: one source, weights that fit, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from edge_zofc.errors import InputError
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.shipped import OWN_VIT


def test_the_packages_own_vit_loads() -> None:
    loaded = load_backbone(BackboneRequest(OWN_VIT, depth=2))
    assert (loaded.info.name, loaded.info.source, loaded.info.depth) == ("vit_tiny_patch16_96", "package", 2)
    assert loaded.info.weights_sha256.startswith("6f3ffc8fb0d765ba")
    assert loaded.image.size == 96
    assert len(loaded.model.blocks) == 2


def test_a_float16_checkpoint_with_a_head_and_another_grid_loads_with_resized_positions(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, depth=12)
    save_file({key: value.half() for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = load_backbone(BackboneRequest("vit_tiny_patch16_224", checkpoint=tmp_path / "w.safetensors", img_size=96))
    assert loaded.model.pos_embed.shape == (1, 37, 192)
    assert loaded.info.source == "checkpoint"
    torch.testing.assert_close(loaded.model.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight.half().float())
    # The class token's place is not part of the grid: resizing must leave it alone.
    torch.testing.assert_close(loaded.model.pos_embed[:, 0], source.pos_embed[:, 0].half().float())


def test_random_weights_are_the_same_for_the_same_seed() -> None:
    first, again, other = (
        load_backbone(
            BackboneRequest("vit_tiny_patch16_224", random_weights=True, img_size=32, depth=1, seed=seed)
        ).info.weights_sha256
        for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "vit_tiny_patch16_225", "random_weights": True}, "nearest are .*vit_tiny_patch16_224"),
        ({"name": "swin_tiny_patch4_window7_224", "random_weights": True}, "not supported; supported are"),
        ({"name": "vit_tiny_patch16_224"}, "exactly one source of weights"),
        ({"pretrained": True}, "need --backbone NAME"),
        ({"name": OWN_VIT, "depth": 13}, "--depth must be 1 to 12"),
        ({"name": OWN_VIT, "depth": 0}, "--depth must be 1 to 12"),
        ({"name": OWN_VIT, "img_size": 100}, "multiple of the patch size 16, got 100"),
        ({"depth": 3}, "--depth keeps the first blocks of a ViT"),
        ({"img_size": 4}, "8 to 1024 pixels"),
        ({"name": "vit_tiny_patch16_224", "checkpoint": Path("none.safetensors")}, "cannot be read"),
    ],
)
def test_options_that_do_not_fit_together_get_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_backbone(BackboneRequest(**options))


def test_a_checkpoint_of_another_model_names_the_keys_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    request = BackboneRequest("vit_tiny_patch16_224", checkpoint=path)
    save_file({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"missing blocks.*unknown conv1\.weight"):
        load_backbone(request)
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_backbone(request)
    state = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0).state_dict()
    save_file({**state, "pos_embed": torch.zeros(1, 8, 192)}, path)
    with pytest.raises(InputError, match="no square grid"):
        load_backbone(request)
    save_file({**state, "norm.weight": torch.zeros(5)}, path)
    with pytest.raises(InputError, match=r"norm\.weight has shape \[5\], not \[192\]"):
        load_backbone(request)


def normalisation_of(name: str, **options: Any) -> tuple[Any, Any, str]:
    request = BackboneRequest(name, random_weights=name != OWN_VIT, img_size=32, depth=1, **options)
    loaded = load_backbone(request)
    return loaded.image.mean, loaded.image.std, loaded.notes[1]


def test_mean_and_std_are_told_with_their_origin_and_can_be_given() -> None:
    """FAULTS C7: the name without a tag stands for weights that were normalised unlike DINO's."""
    half, imagenet = (0.5, 0.5, 0.5), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std, note = normalisation_of("vit_small_patch16_224")
    assert (mean, std) == (half, half)
    assert "mean 0.5,0.5,0.5 and std 0.5,0.5,0.5" in note
    assert "timm's default tag for vit_small_patch16_224 (others are used by vit_small_patch16_224.dino" in note
    mean, std, note = normalisation_of("vit_small_patch16_224.dino")
    assert (mean, std) == imagenet
    assert note.endswith("mean and std of timm's tag 'dino'")
    mean, std, note = normalisation_of("vit_small_patch16_224", mean=imagenet[0], std=imagenet[1])
    assert (mean, std) == imagenet
    assert note.endswith("mean as given, std as given")
    mean, std, note = normalisation_of(OWN_VIT, std=(0.25, 0.25, 0.5))
    assert (mean, std) == (half, (0.25, 0.25, 0.5))
    assert note.endswith("std as given, mean of vit_tiny_patch16_96")


@pytest.mark.parametrize(
    "options",
    [{"mean": (123.675, 116.28, 103.53)}, {"std": (0.2, 0.2, 0.0)}, {"std": (0.2, -0.2, 0.2)},
     {"mean": (0.5, 0.5, float("nan"))}],
)  # fmt: skip
def test_a_mean_or_std_that_cannot_be_is_one_sentence(options: dict[str, Any]) -> None:
    """FAULTS C7: numbers for pixels of 0 to 255 are common."""
    with pytest.raises(InputError, match=r"--(mean|std) must be .* to 1 .*by 255"):
        normalisation_of(OWN_VIT, **options)


def test_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(InputError, match=r"could not be fetched \(no route to host\).*--checkpoint FILE"):
        load_backbone(BackboneRequest("vit_tiny_patch16_224", pretrained=True))
