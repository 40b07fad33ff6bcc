"""Instructions to token identifiers, through the `tokenizers` library's `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from libra_edge.errors import InputError
from libra_edge.paths import StrPath

PAD, UNKNOWN = "[PAD]", "[UNK]"


class Tokenizer:
    """Reads `tokenizer.json`; `encode` gives int64 [T], padded with the `[PAD]` token."""

    def __init__(self, path: StrPath, length: int) -> None:
        path = self.path = Path(path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                "tokenizer-missing", f"{path} does not exist.", "Copy it from the training run."
            ) from None
        except Exception as error:  # the library raises bare Exception for unreadable files
            raise InputError(
                "tokenizer-invalid",
                f"{path} is not a tokenizer: {error}.",
                "Copy tokenizer.json from the training run again.",
            ) from None
        self.length = length
        self.vocabulary = self._tokenizer.get_vocab_size()
        pad = self._tokenizer.token_to_id(PAD)
        if pad is None:
            raise InputError(
                "tokenizer-invalid",
                f"{path} has no {PAD} token.",
                "Use the tokenizer.json that the policy was trained with.",
            )
        self._pad = pad
        self._unknown = self._tokenizer.token_to_id(UNKNOWN)

    def encode(self, instruction: str) -> npt.NDArray[np.int64]:
        """Encode one instruction.

        Raises:
            InputError: empty, longer than T tokens, or without any known word. Truncating or
                guessing would silently change what the robot is told.
        """
        ids = self._tokenizer.encode(instruction).ids
        if not ids or all(i == self._unknown for i in ids):
            raise InputError(
                "instruction-unknown",
                f"No word of the instruction {instruction!r} is known to this policy.",
                "Use the wording the policy was trained on; its model card lists it.",
            )
        if len(ids) > self.length:
            raise InputError(
                "instruction-too-long",
                f"The instruction has {len(ids)} tokens, the policy takes {self.length}.",
                "Shorten the instruction.",
            )
        return np.array(ids + [self._pad] * (self.length - len(ids)), dtype=np.int64)


def word_tokenizer(instructions: Iterable[str]) -> tokenizers.Tokenizer:
    """A lower-case word-level tokenizer over the words of a dataset's instructions."""
    splitter = pre_tokenizers.Whitespace()
    words = sorted(
        {word for text in instructions for word, _ in splitter.pre_tokenize_str(text.lower())}
    )
    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    return tokenizer
