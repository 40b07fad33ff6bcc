"""Pictures against transformers' own image processors: their bytes, before normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from libra_edge.policy.libra_vla.pretrained.config import PicturesConfig
from libra_edge.policy.libra_vla.pretrained.resize import Normalized, Resize, Tiles
from libra_edge.policy.libra_vla.pretrained.sizes import arrangement, short_side, smart_size

# Pillow 13 resizes some upright pictures along columns first: see `test_width_comes_first`.
SIZES = [(48, 64), (120, 160), (61, 97), (224, 224), (30, 200)]
RESAMPLES = {"bilinear": 2, "bicubic": 3}


def picture(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Broad shapes, sharp edges and noise: uint8 [h, w, 3]."""
    random = np.random.default_rng(seed)
    rows, columns = (axis[..., None] for axis in np.mgrid[: size[0], : size[1]])
    broad = 127 + 90 * np.sin(rows / 9.0) * np.cos(columns / 7.0 + np.arange(3))
    edges = np.where((rows + columns) % 23 < 3, 255, broad)
    noisy = edges + random.normal(0, 25, broad.shape)
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))


def as_floats(image: torch.Tensor) -> torch.Tensor:
    return image.float().permute(2, 0, 1)[None]


def require_alike(own: torch.Tensor, wanted: Any) -> None:
    """Within one grey level on 99 % of values, and the same on most."""
    off = np.abs(own.numpy() - np.asarray(wanted, np.float32))
    assert own.shape == np.asarray(wanted).shape
    assert (off <= 1.0).mean() >= 0.99, off.max()
    assert (off == 0).mean() > 0.9
    assert off.max() <= 3


RAW = {"do_normalize": False, "do_rescale": False}


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("size", SIZES)
def test_squares_are_those_of_siglips_processor(size: tuple[int, int], resample: str) -> None:
    image, side = picture(size), 56
    own = Resize(size, (side, side), resample)(as_floats(image))  # type: ignore[arg-type]
    processor = SiglipImageProcessorPil(
        size={"height": side, "width": side}, resample=RESAMPLES[resample], **RAW
    )
    require_alike(own, processor(images=image.numpy(), return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("size", SIZES)
def test_middles_are_those_of_dinov2s_processor(size: tuple[int, int]) -> None:
    image = picture(size, 1)
    resized = short_side(size, 45)
    own = Resize(size, resized, "bicubic", crop=(42, 42))(as_floats(image))
    processor = BitImageProcessorPil(
        size={"shortest_edge": 45}, crop_size={"height": 42, "width": 42}, resample=3, **RAW
    )
    require_alike(own, processor(images=image.numpy(), return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("most", [1, 4, 12])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_those_of_internvls_processor(size: tuple[int, int], most: int) -> None:
    image = picture(size, 2)
    tiles = Tiles(size, 28, 1, most, "bicubic")
    own = tiles(as_floats(image))[0]
    processor = GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=most, **RAW
    )
    found = processor(images=image.numpy(), return_tensors="np")
    assert tiles.count == len(found["pixel_values"])
    require_alike(own, found["pixel_values"])


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_those_of_qwens_processor(size: tuple[int, int]) -> None:
    image = picture(size, 3)
    bounds = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 12}
    processor = Qwen2VLImageProcessorPil(size=bounds, **RAW)
    found = processor(images=image.numpy(), return_tensors="np")
    target = smart_size(size, 28, bounds["shortest_edge"], bounds["longest_edge"])
    assert target is not None
    rows, columns = target[0] // 28, target[1] // 28
    assert found["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * columns]]
    own = Resize(size, target, "bicubic")(as_floats(image))
    # Patches of each merged square, both time steps alike.
    parts = own[0].reshape(3, rows, 2, 14, columns, 2, 14).permute(1, 4, 2, 5, 0, 3, 6)
    patches = parts[..., None, :, :].expand(*parts.shape[:5], 2, 14, 14)
    require_alike(patches.reshape(rows * columns * 4, -1), found["pixel_values"])


def test_values_are_normalised_as_processors_do_it() -> None:
    image, mean, std = picture((28, 28)), (0.48, 0.45, 0.4), (0.27, 0.26, 0.28)
    own = Normalized(PicturesConfig(mean=mean, std=std))(as_floats(image))
    processor = SiglipImageProcessorPil(
        size={"height": 28, "width": 28}, image_mean=list(mean), image_std=list(std)
    )
    wanted = processor(images=image.numpy(), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(own.numpy(), wanted, atol=1e-5)


def test_sizes_are_those_of_qwens_processor_for_any_picture() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(int(side) for side in random.integers(1, 1_500, 2))
        fewest, most = sorted(int(n) for n in random.integers(28 * 28, 10**6, 2))
        if max(size) / min(size) > 200:
            assert smart_size(size, 28, fewest, most) is None  # type: ignore[arg-type]
            continue
        wanted = smart_resize(*size, 28, fewest, most)
        assert smart_size(size, 28, fewest, most) == wanted  # type: ignore[arg-type]


def test_arrangements_are_those_of_internvls_processor_for_any_picture() -> None:
    from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as theirs

    random = np.random.default_rng(1)
    for _ in range(300):
        size = tuple(int(side) for side in random.integers(1, 1_500, 2))
        fewest, most = sorted(int(n) for n in random.integers(1, 13, 2))
        wanted = theirs.get_optimal_tiled_canvas(size, (448, 448), fewest, most)
        assert arrangement(size, 448, fewest, most) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("size", [*SIZES, (97, 61), (160, 120), (200, 30)])
def test_width_comes_first(size: tuple[int, int], resample: str) -> None:
    image, (height, width) = picture(size, 4), (56, 70)
    own = Resize(size, (height, width), resample)(as_floats(image))  # type: ignore[arg-type]
    kernel = Image.Resampling(RESAMPLES[resample])
    wide = Image.fromarray(image.numpy()).resize((width, size[0]), kernel)
    wanted = np.asarray(wide.resize((width, height), kernel)).transpose(2, 0, 1)[None]
    require_alike(own, wanted)
    # What transformers' processors use where torchvision is installed.
    bytes_ = nn.functional.interpolate(
        image.permute(2, 0, 1)[None], size=(height, width), mode=resample, antialias=True
    )
    require_alike(own, bytes_.numpy())


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    image = as_floats(picture((42, 42)))
    assert torch.equal(Resize((42, 42), (42, 42), "bicubic")(image), image)
