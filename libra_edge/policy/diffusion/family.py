"""Reads Diffusion Policy from a `pretrained_model` folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from libra_edge.catalog import PartName
from libra_edge.errors import InputError
from libra_edge.policy.diffusion.eyes import Eyes, Framing
from libra_edge.policy.diffusion.model import Context, DiffusionPolicy, Step
from libra_edge.policy.diffusion.sampler import BETAS, cumulative_alphas, ddim
from libra_edge.policy.diffusion.unet import Sizes, Unet
from libra_edge.policy.family import Contract, Loaded, ReadOptions, Tables
from libra_edge.policy.lerobot.folder import ACTION, MOST, STATE, Folder, read_folder
from libra_edge.policy.lerobot.load import Tensors, build, folder_sha256, read_weights, under
from libra_edge.policy.lerobot.normalize import Normalizer, denormalizing
from libra_edge.policy.lerobot.pictures import Pictures
from libra_edge.policy.lerobot.resnet import fold, group_norm, resnet_like
from libra_edge.policy.lerobot.robot import fitted

# Of torchvision's ResNet in a sequence, as LeRobot has it.
_IN_SEQUENCE = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}


class DiffusionFamily:
    """LeRobot's `diffusion`."""

    name = "diffusion"
    takes: tuple[str, ...] = ()
    # Convolutions, for which there is no form in integers yet.
    parts: ClassVar[dict[str, PartName | None]] = {}

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """By the type."""
        return config.get("type") == self.name

    def read(self, folder: Path, options: ReadOptions) -> Loaded:
        """See `libra_edge.policy.family.Family.read`."""
        read = read_folder(folder)
        robot = fitted(read, options.robot)
        horizon, executed, back = _steps(read)
        framing = _framing(read)
        sampler, coefficients = _sampler(read)
        clip = float(read.get("clip_sample_range", (int, float)))
        tensors = under(read_weights(folder), "diffusion.")
        eyes = _eyes(read, tensors)
        features = sum(e.out.out_features for e in eyes) * (
            len(read.cameras) if len(eyes) == 1 else 1
        )
        sizes = _sizes(read, back * (read.state_dim + features))
        conditions = _split_conditions(under(tensors, "unet."), sizes.time)
        unet = build(read, lambda: Unet(sizes), conditions)
        step = read.steps.normalization
        context = Context(
            Pictures(read, back),
            framing,
            Normalizer(step, STATE, "STATE", read.state_dim),
            nn.ModuleList(eyes),
            unet,
        )
        with torch.no_grad():
            modulation = unet.of_time(sampler.float()).numpy()
        offset, scale = denormalizing(read.steps.unnormalization, ACTION, "ACTION", read.action_dim)
        tables = Tables(modulation, coefficients, False, scale, offset, back - 1, executed)
        ahead = (back,) if back > 1 else ()
        example = (
            torch.zeros(*ahead, *robot.image_shape, dtype=torch.uint8),
            torch.zeros(*ahead, read.state_dim),
        )
        policy = DiffusionPolicy(
            context,
            Step(unet, clip if read.get("clip_sample", bool) else None),
            tables,
            example,
            horizon,
        ).eval()
        contract = Contract(
            robot,
            self.name,
            chunk=executed,
            rows=executed,
            observation_steps=back,
            denoise_steps=len(coefficients),
            noise_shape=(horizon, read.action_dim),
            prediction_type=read.get("prediction_type", str),
            scheduler="ddim",
        )
        return Loaded(contract, policy, folder_sha256(folder, robot))


def _steps(folder: Folder) -> tuple[int, int, int]:
    """Horizon, executed steps and observation steps."""
    horizon, executed = folder.count("horizon"), folder.count("n_action_steps")
    back = folder.count("n_obs_steps", 16)
    if executed > horizon - back + 1:
        raise folder.wrong(
            f"n_action_steps {executed} do not fit horizon {horizon} with n_obs_steps {back}"
        )
    return horizon, executed, back


def _framing(folder: Folder) -> Framing:
    sizes = {size for _, size in folder.cameras.values()}
    if len(sizes) != 1:
        raise folder.wrong("its cameras differ in size, which LeRobot's own policy refuses")
    (size,) = sizes
    resized, cropped = (folder.pair(key) for key in ("resize_shape", "crop_shape"))
    ratio = folder.config.get("crop_ratio", 1.0)
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio <= 1:
        raise folder.wrong(f"crop_ratio is {ratio!r}")
    if resized is not None:
        # As LeRobot's configuration does when it is read.
        sides = (int(resized[0] * ratio), int(resized[1] * ratio))
        cropped = sides if ratio < 1.0 else None
        if min(sides) < 1:
            raise folder.wrong(f"crop_ratio {ratio} leaves nothing of {list(resized)}")
    inside = resized or size
    if cropped is not None and (cropped[0] > inside[0] or cropped[1] > inside[1]):
        raise folder.wrong(f"crop_shape {list(cropped)} is larger than the pictures {list(inside)}")
    return Framing(size, resized, cropped)


def _sampler(folder: Folder) -> tuple[Tensor, Any]:
    """Time steps int64 [K], and coefficients [K, 6]."""
    if folder.get("noise_scheduler_type", str) != "DDIM":
        raise InputError(
            "sampler-unsupported",
            f"{folder.path}: noise_scheduler_type is {folder.config['noise_scheduler_type']!r}, "
            "which draws new noise in every denoising step.",
            'Set noise_scheduler_type to "DDIM" and num_inference_steps to, say, 10 in '
            "config.json: the weights stay, and LeRobot reads it too. Evaluate it there first.",
        )
    train = folder.count("num_train_timesteps")
    steps = folder.config.get("num_inference_steps")
    steps = train if steps is None else steps
    if not isinstance(steps, int) or not 1 <= steps <= min(train, 1000):
        raise folder.wrong(f"num_inference_steps is {steps!r} of {train} training steps")
    schedule, predicts = folder.get("beta_schedule", str), folder.get("prediction_type", str)
    if schedule not in BETAS:
        raise folder.wrong(f"beta_schedule {schedule!r} is not one of {', '.join(BETAS)}")
    if predicts not in ("epsilon", "sample"):
        raise folder.wrong(f"prediction_type {predicts!r} is not epsilon or sample")
    start, end = (float(folder.get(f"beta_{e}", (int, float))) for e in ("start", "end"))
    alphas = cumulative_alphas(schedule, train, start, end)
    times, coefficients = ddim(alphas, steps, predicts_noise=predicts == "epsilon")
    return torch.from_numpy(times), coefficients


def _eyes(folder: Folder, tensors: Tensors) -> list[Eyes]:
    """One for each camera, or one for all."""
    each = folder.get("use_separate_rgb_encoder_per_camera", bool)
    prefixes = (
        [f"rgb_encoder.{i}." for i in range(len(folder.cameras))] if each else ["rgb_encoder."]
    )
    found = []
    for prefix in prefixes:
        own = {_own_name(name): tensor for name, tensor in under(tensors, prefix).items()}
        shapes = {n: tuple(t.shape) for n, t in under(own, "backbone.").items()}
        grouped = folder.get("use_group_norm", bool)
        norm = group_norm if grouped else nn.BatchNorm2d
        if not {"pool.nets.weight", "pool.pos_grid"} <= own.keys():
            raise folder.wrong(f"its weights have no keypoints under {prefix}")
        points, places = len(own["pool.nets.weight"]), len(own["pool.pos_grid"])
        own["pool.places.weight"] = own.pop("pool.pos_grid").transpose(0, 1).contiguous()
        eyes = build(folder, lambda: Eyes(resnet_like(shapes, norm), points, places), own)  # noqa: B023
        fold(eyes.backbone)
        found.append(eyes)
    return found


def _split_conditions(tensors: Tensors, time: int) -> Tensors:
    """What conditions a block, one product in LeRobot, as its shares of time and observation."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        block, _, last = name.rpartition(".cond_encoder.1.")
        if not block:
            found[name] = tensor
        elif last == "bias":
            found[f"{block}.of_time.bias"] = tensor
        else:
            found[f"{block}.of_time.weight"] = tensor[:, :time].clone()
            found[f"{block}.of_seen.weight"] = tensor[:, time:].clone()
    return found


def _own_name(name: str) -> str:
    head, _, rest = name.partition("backbone.")
    if head or not rest:
        return name
    number, _, tail = rest.partition(".")
    return f"backbone.{_IN_SEQUENCE.get(number, number)}.{tail}"


def _sizes(folder: Folder, seen: int) -> Sizes:
    dims = folder.get("down_dims", list)
    whole = all(isinstance(d, int) and not isinstance(d, bool) and 0 < d <= MOST for d in dims)
    if not 1 <= len(dims) <= 16 or not whole:
        raise folder.wrong(f"down_dims is {dims!r}")
    if folder.config["horizon"] % 2 ** len(dims):
        raise folder.wrong(f"horizon is no multiple of {2 ** len(dims)}")
    return Sizes(
        folder.action_dim,
        tuple(dims),
        folder.count("kernel_size"),
        folder.count("n_groups"),
        folder.count("diffusion_step_embed_dim"),
        seen,
        folder.get("use_film_scale_modulation", bool),
    )


FAMILY = DiffusionFamily()
