"""The tokenizer that a folder only names, as LeRobot's steps use it, in one `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers

from libra_edge.errors import InputError
from libra_edge.policy.lerobot.folder import Folder
from libra_edge.policy.tokenizer import Tokenizer, read_plain

TOKENIZER_STEP = "tokenizer_processor"
# Padding tokens that need no other file to be known by.
_PADS = ("<pad>", "[PAD]")
# The end of a text that does not end in a line break yet.
_OPEN_END = Regex(r"(?<!\n)\z")


def read_words(
    folder: Folder, file: Path | None, *, newline_step: str, pad: int | None = None
) -> Tokenizer:
    """A tokenizer that ends instructions, cuts and pads them itself, as LeRobot does.

    Args:
        folder: whose preprocessor has the step `tokenizer_processor`.
        file: the `tokenizer.json` of the model that the step names; its `tokenizer_config.json`
            may lie beside it.
        newline_step: of the preprocessor, which ends the instruction with a line break.
        pad: what fills up where neither file says it.

    Raises:
        InputError: it is missing, or does not do what the steps ask for.
    """
    steps = folder.steps.before
    settings = steps.get(TOKENIZER_STEP)
    if settings is None or newline_step not in steps:
        absent = TOKENIZER_STEP if settings is None else newline_step
        raise folder.wrong(f"its preprocessor has no step {absent}")
    if file is None:
        raise InputError(
            "tokenizer-missing",
            f"{folder.path} only names its tokenizer: {settings.get('tokenizer_name')}.",
            "Fetch tokenizer.json of that model and name it: --tokenizer FILE.",
        )
    length = settings.get("max_length")
    if (
        not isinstance(length, int)
        or length < 1
        or length != folder.get("tokenizer_max_length", int)
    ):
        raise folder.wrong(f"its preprocessor cuts instructions at {length!r} tokens")
    for key, wanted in (("padding_side", "right"), ("truncation", True)):
        if settings.get(key, wanted) != wanted:
            raise folder.wrong(f"{key} of its tokenizer is {settings[key]!r}, not {wanted!r}")
    plain = read_plain(file)
    said = _pad_of(plain, file)
    pad = pad if said is None else said
    if pad is None or plain.id_to_token(pad) is None:
        raise InputError(
            "tokenizer-invalid",
            f"{file} does not say which token fills up short instructions.",
            "Put tokenizer_config.json of the same model beside it.",
        )
    ended = normalizers.Replace(_OPEN_END, "\n")
    own = plain.normalizer
    plain.normalizer = ended if own is None else normalizers.Sequence([ended, own])
    plain.enable_truncation(length)
    plain.enable_padding(length=length, pad_id=pad, pad_token=plain.id_to_token(pad))
    return Tokenizer(file, length, plain.to_str())


def _pad_of(plain: tokenizers.Tokenizer, file: Path) -> int | None:
    if plain.padding is not None:
        return int(plain.padding["pad_id"])
    beside = file.parent / "tokenizer_config.json"
    named: list[str] = []
    if beside.is_file():
        try:
            token = json.loads(beside.read_text(encoding="utf-8")).get("pad_token")
        except (ValueError, AttributeError):
            token = None
        token = token.get("content") if isinstance(token, dict) else token
        named = [token] if isinstance(token, str) else []
    found = (plain.token_to_id(token) for token in [*named, *_PADS])
    return next((i for i in found if i is not None), None)
