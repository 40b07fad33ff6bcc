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
    """Reads `tokenizer.json`; `encode` gives int64 [T], padded.

    A file that says itself how it pads and cuts is followed; any other needs a `[PAD]` token, and
    instructions longer than T are refused.

    `vocabulary` is one more than the largest identifier, `pad` the one that fills up.

    Args:
        path: the file, which errors name.
        length: T.
        text: its content, where it is not to be read from `path`.

    Raises:
        InputError: it cannot be read, or does not pad to T.
    """

    def __init__(self, path: StrPath, length: int, text: str | None = None) -> None:
        path = self.path = Path(path)
        self.text, self._tokenizer = _read(path, text)
        self.length = length
        self.vocabulary = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        padding = self._tokenizer.padding
        if padding is not None and padding["length"] != length:
            raise _invalid(f"{path} pads to {padding['length']} tokens, the policy takes {length}")
        pad = self._tokenizer.token_to_id(PAD) if padding is None else padding["pad_id"]
        if pad is None:
            raise _invalid(f"{path} has no {PAD} token")
        self.pad = pad
        self._unknown = self._tokenizer.token_to_id(UNKNOWN)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special = sorted(token.content for token in added if token.special)

    def identifier(self, token: str) -> int | None:
        """Of one token; None where there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, instruction: str) -> npt.NDArray[np.int64]:
        """Encode one instruction.

        Raises:
            InputError: empty, longer than T tokens, without any known word, or with a word that is
                no text to this policy. Truncating or guessing would silently change what the robot
                is told.
        """
        for word in self._special:
            if word in instruction:
                raise InputError(
                    "instruction-special",
                    f"The instruction {instruction!r} holds {word}, which this policy's tokenizer "
                    "reads as a mark, not as text.",
                    "Leave it out.",
                )
        encoding = self._tokenizer.encode(instruction)
        ids = [i for i, used in zip(encoding.ids, encoding.attention_mask, strict=True) if used]
        if not instruction.strip() or not ids or all(i == self._unknown for i in ids):
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
        return np.array(ids + [self.pad] * (self.length - len(ids)), dtype=np.int64)


def read_plain(path: Path) -> tokenizers.Tokenizer:
    """The library's own tokenizer.

    Raises:
        InputError: the file cannot be read.
    """
    return _read(path, None)[1]


def _read(path: Path, text: str | None) -> tuple[str, tokenizers.Tokenizer]:
    try:
        text = path.read_bytes().decode("utf-8") if text is None else text
        return text, tokenizers.Tokenizer.from_str(text)
    except FileNotFoundError:
        raise InputError(
            "tokenizer-missing", f"{path} does not exist.", "Copy it from the training run."
        ) from None
    except BaseException as error:
        # The library raises bare Exception for unreadable files, and panics at some of them.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise _invalid(f"{path} is not a tokenizer: {error}") from None


def _invalid(fact: str) -> InputError:
    return InputError(
        "tokenizer-invalid", f"{fact}.", "Use the tokenizer.json that the policy was trained with."
    )


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
