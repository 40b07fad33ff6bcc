from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libra_edge.errors import InputError
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from tests.tiny import INSTRUCTIONS


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(word_tokenizer(INSTRUCTIONS).to_str())
    return path


def test_words_are_numbered_and_padded(path: Path) -> None:
    tokens = Tokenizer(path, 5).encode("Open the  FAUCET")
    words = sorted({w for text in INSTRUCTIONS for w in text.split()})
    assert tokens.tolist() == [2 + words.index(w) for w in ("open", "the", "faucet")] + [0, 0]
    assert tokens.dtype == "int64"


def test_an_unknown_word_among_known_ones_is_marked(path: Path) -> None:
    assert Tokenizer(path, 5).encode("open the gate").tolist()[2] == 1


@pytest.mark.parametrize("text", ["", "   ", "fly away"])
def test_an_instruction_without_a_known_word_is_refused(path: Path, text: str) -> None:
    with pytest.raises(InputError, match="instruction-unknown"):
        Tokenizer(path, 5).encode(text)


def test_a_long_instruction_is_not_cut(path: Path) -> None:
    with pytest.raises(InputError, match="instruction-too-long"):
        Tokenizer(path, 5).encode("open the faucet and close the faucet")


@given(text=st.text(max_size=40))
def test_any_text_is_encoded_or_refused(path: Path, text: str) -> None:
    try:
        tokens = Tokenizer(path, 5).encode(text)
    except InputError:
        return
    assert tokens.shape == (5,)
    assert tokens.min() >= 0


def test_a_file_at_which_the_library_panics_is_no_bug_of_ours(tmp_path: Path) -> None:
    """Its exception is no `Exception`: a prefix longer than the word that a merge makes."""
    body = {
        "version": "1.0",
        "added_tokens": [],
        "model": {
            "type": "BPE",
            "continuing_subword_prefix": "######",
            "vocab": {"a": 0, "b": 1, "ab": 2},
            "merges": [["a", "b"]],
        },
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(body))
    with pytest.raises(InputError, match="tokenizer-invalid"):
        Tokenizer(path, 5)
