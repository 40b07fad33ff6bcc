"""Configuration of the planner's backbones and of the refiner's eyes.

Sizes of pretrained models go by the names that transformers has for them. Whatever else their own
configuration says has to be what is written in `build.py`: a folder that differs is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from libra_edge.models import Strict
from libra_edge.policy.libra_vla.pretrained.sizes import arrangement, smart_size

Size = Annotated[int, Field(ge=1, le=65_536)]
Layers = Annotated[int, Field(ge=0, le=256)]
Side = Annotated[int, Field(ge=1, le=4_096)]
Token = Annotated[int, Field(ge=0, lt=1_000_000)]
Tokens = Annotated[tuple[Token, ...], Field(max_length=4_096)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
Activation = Literal["gelu", "gelu_pytorch_tanh", "silu"]
Colour = Annotated[float, Field(ge=-1e3, le=1e3)]
Colours = tuple[Colour, Colour, Colour]
Spread = Annotated[float, Field(ge=1e-6, le=1e3)]
Spreads = tuple[Spread, Spread, Spread]
Resample = Literal["bilinear", "bicubic"]


# Each sees all before it: a mask of their square lies in memory, and in the engine.
MOST_TOKENS = 16_384


class CompactBackboneConfig(Strict):
    """The built-in vision-language backbone: convolutional stem, then a transformer encoder."""

    kind: Literal["compact"] = "compact"
    stem_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (24, 48, 96)
    width: Size = 192
    layers: Annotated[int, Field(ge=0, le=128)] = 3
    heads: Size = 6

    @property
    def words(self) -> str:
        """Kind and size, for people."""
        return f"compact backbone, width {self.width}, {self.layers} layers"


class PicturesConfig(Strict):
    """How pictures are brought to a model's size: resized as its processor does, then normalised.

    `mean` and `std` are of values from 0 to 1.
    """

    resample: Resample = "bicubic"
    mean: Colours
    std: Spreads


class LanguageConfig(Strict):
    """A decoder-only language model; `mrope_section` where positions have three axes."""

    model_type: Literal["llama", "qwen2", "qwen3", "qwen2_5_vl_text"]
    vocab_size: Annotated[int, Field(ge=2, le=1_000_000)]
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size
    attention_bias: bool = False
    rms_norm_eps: Epsilon = 1e-6
    rope_theta: Annotated[float, Field(ge=1, le=1e12)] = 1e6
    mrope_section: tuple[Size, Size, Size] | None = None

    @model_validator(mode="after")
    def _fits(self) -> LanguageConfig:
        three = self.model_type == "qwen2_5_vl_text"
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} heads are no multiple of {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd")
        if (self.mrope_section is not None) != three:
            raise ValueError("mrope_section is for qwen2_5_vl_text, and needed there")
        if self.mrope_section is not None and 2 * sum(self.mrope_section) != self.head_dim:
            raise ValueError(f"mrope_section {self.mrope_section} is not half of head_dim")
        derived = self.model_type in ("qwen2_5_vl_text",)
        if derived and self.head_dim * self.num_attention_heads != self.hidden_size:
            raise ValueError("hidden_size is not num_attention_heads times head_dim")
        return self


class PromptConfig(Strict):
    """The tokens around pictures and instruction, as the model's own chat template has them.

    `before` holds the tokens in front of each camera's picture, `between` those from the last
    picture to the instruction, `after` those that follow it. `pad` fills up short instructions and
    is masked.
    """

    before: Annotated[tuple[Tokens, ...], Field(min_length=1, max_length=16)]
    between: Tokens
    after: Tokens
    pad: Token


class InternVisionConfig(Strict):
    """InternViT: pictures of one size, cut into patches."""

    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    image_size: Side
    patch_size: Side
    attention_bias: bool = True
    use_qk_norm: bool = False
    norm_type: Literal["layer_norm", "rms_norm"] = "layer_norm"
    layer_norm_eps: Epsilon = 1e-6
    use_mean_pooling: bool = True
    hidden_act: Activation = "gelu"

    @model_validator(mode="after")
    def _fits(self) -> InternVisionConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} "
                "heads"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        return self


class _VisionLanguage(Strict):
    """What the pretrained backbones have in common."""

    pictures: PicturesConfig
    language: LanguageConfig
    prompt: PromptConfig

    @property
    def width(self) -> int:
        """Of the hidden states that it gives."""
        return self.language.hidden_size

    @property
    def words(self) -> str:
        """Kind and size, for people."""
        layers = self.language.num_hidden_layers
        return f"{getattr(self, 'kind', '')} backbone, width {self.width}, {layers} layers"

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """Tokens of a picture of this height and width."""
        raise NotImplementedError

    def refuses(
        self, size: tuple[int, int], cameras: int, vocabulary: int, length: int
    ) -> str | None:
        """Why it does not take these pictures and words; None if it does.

        Args:
            size: height and width of the cameras' pictures.
            cameras: V.
            vocabulary: of the tokenizer.
            length: T, of an instruction.
        """
        words, prompt = self.language.vocab_size, self.prompt
        largest = max((*sum(prompt.before, ()), *prompt.between, *prompt.after, prompt.pad))
        if max(vocabulary - 1, largest) >= words:
            return f"it has {words} tokens, and there is a token {max(vocabulary - 1, largest)}"
        if len(prompt.before) != cameras:
            return f"its prompt is for {len(prompt.before)} cameras, the robot has {cameras}"
        around = sum(map(len, (*prompt.before, prompt.between, prompt.after)))
        tokens = cameras * self.picture_tokens(size) + around + length + 1
        if tokens > MOST_TOKENS:
            return (
                f"{cameras} pictures of {size[0]} x {size[1]} and the words are {tokens} tokens, "
                f"at most {MOST_TOKENS} are taken: smaller pictures, or fewer tiles or pixels"
            )
        return None


class InternVlConfig(_VisionLanguage):
    """InternVL as transformers has it: InternViT, a projector and a language model.

    A picture becomes one tile, or up to `max_tiles` of the arrangement that is closest to its own
    shape and, beside them, the whole picture as one more. `shuffle` patches in a square become one
    token.
    """

    kind: Literal["internvl"] = "internvl"
    min_tiles: Annotated[int, Field(ge=1, le=64)] = 1
    max_tiles: Annotated[int, Field(ge=1, le=64)] = 1
    shuffle: Annotated[int, Field(ge=1, le=8)] = 2
    vision: InternVisionConfig

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `_VisionLanguage.picture_tokens`."""
        side = self.vision.image_size
        columns, rows = arrangement(size, side, self.min_tiles, self.max_tiles)
        tiles = columns * rows + int(columns * rows > 1)
        return tiles * (side // self.vision.patch_size // self.shuffle) ** 2

    @model_validator(mode="after")
    def _fits(self) -> InternVlConfig:
        side = self.vision.image_size // self.vision.patch_size
        if side % self.shuffle:
            raise ValueError(f"{side} patches a side are no multiple of {self.shuffle}")
        if self.min_tiles > self.max_tiles:
            raise ValueError(f"min_tiles {self.min_tiles} is more than max_tiles {self.max_tiles}")
        if self.language.model_type == "qwen2_5_vl_text":
            raise ValueError("qwen2_5_vl_text is the language model of qwen2_5_vl alone")
        return self


class QwenVisionConfig(Strict):
    """The vision tower of Qwen2.5-VL: any size, attention within windows but for some layers."""

    hidden_size: Size
    intermediate_size: Size
    depth: Layers
    num_heads: Size
    patch_size: Side = 14
    spatial_merge_size: Annotated[int, Field(ge=1, le=8)] = 2
    window_size: Side = 112
    fullatt_block_indexes: Annotated[tuple[Layers, ...], Field(max_length=256)] = (7, 15, 23, 31)

    @property
    def multiple(self) -> int:
        """What the sides of a picture are multiples of, in pixels."""
        return self.patch_size * self.spatial_merge_size

    @model_validator(mode="after")
    def _fits(self) -> QwenVisionConfig:
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 4 times {self.num_heads} "
                "heads"
            )
        if self.window_size < self.multiple:
            raise ValueError(f"window_size {self.window_size} is less than one merged patch")
        return self


class QwenVlConfig(_VisionLanguage):
    """Qwen2.5-VL. Pictures keep their shape, between `min_pixels` and `max_pixels` in all."""

    kind: Literal["qwen2_5_vl"] = "qwen2_5_vl"
    min_pixels: Annotated[int, Field(ge=1, le=2**26)] = 56 * 56
    max_pixels: Annotated[int, Field(ge=1, le=2**26)] = 28 * 28 * 1280
    vision: QwenVisionConfig

    def target(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Height and width that a picture is resized to; None for shapes that are refused."""
        return smart_size(size, self.vision.multiple, self.min_pixels, self.max_pixels)

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """See `_VisionLanguage.picture_tokens`."""
        height, width = self.target(size) or (0, 0)
        return height * width // self.vision.multiple**2

    def refuses(
        self, size: tuple[int, int], cameras: int, vocabulary: int, length: int
    ) -> str | None:
        """See `_VisionLanguage.refuses`."""
        if self.target(size) is None:
            shape = f"{size[0]} x {size[1]}"
            return f"no side of a picture may be 200 times the other, and it is {shape}"
        return super().refuses(size, cameras, vocabulary, length)

    @model_validator(mode="after")
    def _fits(self) -> QwenVlConfig:
        if self.language.model_type != "qwen2_5_vl_text":
            raise ValueError("the language model of qwen2_5_vl is qwen2_5_vl_text")
        if not self.vision.multiple**2 <= self.max_pixels or self.min_pixels > self.max_pixels:
            raise ValueError(f"there is no size from {self.min_pixels} to {self.max_pixels} pixels")
        return self


class EyesConfig(Strict):
    """A pretrained picture encoder of the refiner.

    Pictures become `image_size` squares: resized to that, or so that their shorter side is
    `shortest_edge` and then cut out of the middle.
    """

    kind: Literal["siglip", "dinov2"]
    pictures: PicturesConfig
    shortest_edge: Side | None = None
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    image_size: Side
    patch_size: Side
    layer_norm_eps: Epsilon = 1e-6
    hidden_act: Activation = "gelu_pytorch_tanh"
    use_swiglu_ffn: bool = False

    @property
    def tokens(self) -> int:
        """Patches of one picture."""
        return (self.image_size // self.patch_size) ** 2

    @model_validator(mode="after")
    def _fits(self) -> EyesConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} "
                "heads"
            )
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is less than one patch")
        if self.kind == "dinov2" and self.intermediate_size % self.hidden_size:
            raise ValueError("dinov2's intermediate_size is a multiple of hidden_size")
        if self.kind == "siglip" and self.use_swiglu_ffn:
            raise ValueError("use_swiglu_ffn is dinov2's alone")
        if self.shortest_edge is not None and self.shortest_edge < self.image_size:
            raise ValueError(f"shortest_edge {self.shortest_edge} is less than image_size")
        return self


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "compact"))
    return str(getattr(value, "kind", "compact"))


KINDS = {"compact": CompactBackboneConfig, "internvl": InternVlConfig, "qwen2_5_vl": QwenVlConfig}
VisionLanguageConfig = InternVlConfig | QwenVlConfig
BackboneConfig = Annotated[
    Annotated[CompactBackboneConfig, Tag("compact")]
    | Annotated[InternVlConfig, Tag("internvl")]
    | Annotated[QwenVlConfig, Tag("qwen2_5_vl")],
    Discriminator(_kind),
]
