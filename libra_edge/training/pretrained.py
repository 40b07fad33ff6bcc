"""Parts of a new policy that start from pretrained models: the planner's backbone, the eyes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from libra_edge.data.extras import needs_extra
from libra_edge.errors import InputError
from libra_edge.policy.config import PolicyConfig
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.policy.libra_vla.pretrained.config import CompactBackboneConfig
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.training.config import TrainingConfig, TrainingRecipe

_NO_PROMPT = {"before": [[]], "between": [], "after": [], "pad": 0}
# What a recipe may say of a model whose sizes stand in its folder.
_CHOICES = ("kind", "min_tiles", "max_tiles", "min_pixels", "max_pixels")


@dataclass(frozen=True)
class Sources:
    """Folders of pretrained models: a vision-language model, a picture encoder; None for none."""

    backbone: Path | None = None
    eyes: Path | None = None

    def describe(self, recipe: TrainingRecipe, cameras: int) -> TrainingRecipe:
        """The recipe with the models' own sizes, prompt and processing in its policy.

        Args:
            recipe: what to train and how.
            cameras: V.

        Raises:
            InputError: a folder is not usable, or the recipe says otherwise.
        """
        if self == Sources():
            return recipe
        backbone = eyes = None
        with needs_extra("train", "Starting from a pretrained model"):
            from libra_edge.policy.libra_vla.pretrained.folder import read_backbone, read_eyes
            from libra_edge.policy.libra_vla.pretrained.prompt import read_prompt
        if self.backbone is not None:
            # Sizes first: a folder of another kind has no prompt to read.
            plain = read_backbone(self.backbone, _NO_PROMPT)
            backbone = plain.model_dump() | {"prompt": read_prompt(self.backbone, cameras)}
        if self.eyes is not None:
            eyes = read_eyes(self.eyes).model_dump()
        return with_parts(recipe, backbone, eyes)

    def words(self, recipe: TrainingRecipe) -> Tokenizer | None:
        """The backbone's tokenizer for this policy; None without a backbone.

        Raises:
            InputError: it cannot be used.
        """
        if self.backbone is None:
            return None
        from libra_edge.policy.libra_vla.pretrained.prompt import TOKENIZER, read_words

        length = recipe.instruction_length
        return Tokenizer(self.backbone / TOKENIZER, length, read_words(self.backbone, length))

    def load(self, policy: LibraVLA) -> None:
        """Fill the policy's parts with the folders' weights.

        Raises:
            InputError: a weight is missing, of another shape, or not finite.
        """
        if self == Sources():
            return
        from libra_edge.policy.libra_vla.pretrained.weights import load_pretrained

        config = policy.config
        backbone = config.planner.backbone
        if self.backbone is not None and not isinstance(backbone, CompactBackboneConfig):
            load_pretrained(policy.planner.backbone, backbone, self.backbone)
        refiner, chosen = policy.refiner, config.refiner
        if self.eyes is None or refiner is None or chosen is None or chosen.eyes is None:
            return
        load_pretrained(refiner.get_submodule("images"), chosen.eyes, self.eyes)


def with_parts(
    recipe: TrainingRecipe, backbone: Mapping[str, Any] | None, eyes: Mapping[str, Any] | None
) -> TrainingRecipe:
    """The recipe with these tables in its policy; of the backbone's it may choose some keys itself.

    Raises:
        InputError: it says something else of them.
    """
    policy = dict(recipe.policy)
    if backbone is not None:
        planner = _table("policy.planner", policy.get("planner", {}))
        own = _table("policy.planner.backbone", planner.get("backbone", {}))
        _require_choices(own, backbone)
        policy["planner"] = planner | {"backbone": {**backbone, **own}}
    if eyes is not None:
        refiner = _table("policy.refiner", policy.get("refiner", {}))
        if "eyes" in refiner:
            raise _invalid("policy.refiner.eyes", "the folder of --eyes says all of it")
        policy["refiner"] = refiner | {"eyes": dict(eyes)}
    return recipe.model_copy(update={"policy": policy})


def _table(key: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise _invalid(key, "it is no table")
    return dict(given)


def _require_choices(own: Mapping[str, Any], backbone: Mapping[str, Any]) -> None:
    for key, value in own.items():
        if key not in _CHOICES or key not in backbone:
            usable = [name for name in _CHOICES[1:] if name in backbone]
            raise _invalid(
                f"policy.planner.backbone.{key}",
                f"a pretrained backbone has its own; a recipe may set {', '.join(usable)}",
            )
        if key == "kind" and value != backbone["kind"]:
            raise _invalid(
                "policy.planner.backbone.kind", f"the backbone is of the kind {backbone['kind']!r}"
            )


def freeze(policy: LibraVLA, config: TrainingConfig) -> None:
    """Take the weights that are not trained out of training.

    Raises:
        InputError: the recipe freezes what is not there.
    """
    backbone = policy.planner.backbone
    pretrained = _pretrained_backbone(policy.config)
    if not pretrained and config.freeze_backbone is not None:
        raise _invalid("training.freeze_backbone", "the policy has no pretrained backbone")
    if pretrained and config.freeze_backbone == "all":
        backbone.get_submodule("model").requires_grad_(False)
    elif pretrained and config.freeze_backbone in (None, "vision"):
        for part in backbone.vision:  # type: ignore[union-attr]
            part.requires_grad_(False)
    eyes = pretrained_eyes(policy)
    if config.freeze_eyes:
        if eyes is None:
            raise _invalid("training.freeze_eyes", "the policy has no pretrained eyes")
        eyes.requires_grad_(False)


def pretrained_parts(policy: LibraVLA) -> list[nn.Module]:
    """What of a policy came from elsewhere."""
    found = [pretrained_eyes(policy)]
    if _pretrained_backbone(policy.config):
        found.append(policy.planner.backbone.get_submodule("model"))
    return [part for part in found if part is not None]


def pretrained_eyes(policy: LibraVLA) -> nn.Module | None:
    """The pretrained encoder of the refiner; None without one."""
    chosen, refiner = policy.config.refiner, policy.refiner
    if chosen is None or chosen.eyes is None or refiner is None or refiner.images is None:
        return None
    return refiner.images.get_submodule("model")


def _pretrained_backbone(config: PolicyConfig) -> bool:
    return not isinstance(config.planner.backbone, CompactBackboneConfig)


def _invalid(key: str, why: str) -> InputError:
    return InputError("recipe-invalid", f"{key}: {why}.", "Correct the training recipe.")
