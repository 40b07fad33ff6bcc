"""`le_tokenize` over the byte-pair tokenizers of SmolVLA and pi0, beside Python's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers

from libra_edge.binding import abi
from libra_edge.binding.policy import Policy
from libra_edge.policy.tokenizer import Tokenizer
from tests.runtime import tiny_release as tiny
from tests.runtime.test_tokenizer_native import same, tokenize, with_tokenizer

CASES = Path(__file__).parent.parent / "policy/cases"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
BYTE_LEVEL |= {"use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def content(case: str, *, length: int = tiny.T, model: Any = None, **parts: Any) -> str:
    """A case's file as `compile` writes it, with other parts where they are given."""
    file = json.loads((CASES / case / "tokenizer.json").read_text(encoding="utf-8"))
    added = parts.pop("added", [])
    file |= parts
    file["model"] |= model or {}
    file["added_tokens"] += added
    plain = tokenizers.Tokenizer.from_str(json.dumps(file))
    end = normalizers.Replace(Regex(r"(?<!\n)\z"), "\n")
    own = plain.normalizer
    plain.normalizer = end if own is None else normalizers.Sequence([end, own])
    plain.enable_truncation(length)
    plain.enable_padding(length=length, pad_id=0, pad_token=plain.id_to_token(0))
    return str(plain.to_str())


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


VARIANTS = {
    "smolvla": content("smolvla"),
    "pi0": content("pi0"),
    "digits": content("smolvla", pre_tokenizer=sequence(DIGITS, BYTE_LEVEL)),
    "runs": content(
        "smolvla", pre_tokenizer=sequence(DIGITS | {"individual_digits": False}, BYTE_LEVEL)
    ),
    "prefix": content("smolvla", pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True}),
    "whole": content("smolvla", pre_tokenizer=BYTE_LEVEL | {"use_regex": False}),
    "words": content("smolvla", pre_tokenizer=sequence({"type": "Whitespace"}, BYTE_LEVEL)),
    "ignore_merges": content("smolvla", model={"ignore_merges": True}),
    "unknown": content("pi0", model={"byte_fallback": False}),
    "fused": content("pi0", model={"byte_fallback": False, "fuse_unk": True}),
    "prepend": content(
        "pi0",
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Lowercase"},
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": "  "}, "content": "▁"},
            ],
        },
    ),
    "added": content(
        "pi0",
        added=[
            {"id": 380 + i, "content": text, "special": False} | PLAIN
            for i, text in enumerate(["\n\n", "\n\n\n", "th", "the c"])
        ],
    ),
}


@pytest.fixture(scope="module", params=VARIANTS)
def pair(
    request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Policy, Tokenizer]]:
    copied = tiny.link_release(release, tmp_path_factory.mktemp("bpe") / "release")
    path = with_tokenizer(copied, VARIANTS[request.param])
    with Policy(path) as policy:
        yield policy, Tokenizer(path / "tokenizer.json", tiny.T)


WORDS = [
    "the",
    " the",
    "pick up",
    " cube",
    "'s",
    "'ll",
    "it's",
    "12",
    "3٤",
    "Ⅷ",
    "  ",
    "\n",
    "\n\n",
]
WORDS += [
    "öffne",
    "水",
    "🤖",
    "\u00a0",
    "\u3000",
    "\t",
    "▁",
    "!?",
    "a_b",
    "\x85",
    "\x1c",
    "the cube",
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(WORDS),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
        ),
        max_size=6,
    ).map("".join)
)
def test_any_text(pair: tuple[Policy, Tokenizer], text: str) -> None:
    same(pair, text)


def test_characters(pair: tuple[Policy, Tokenizer]) -> None:
    taken = 0
    for code in range(1, sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000 or (code > 0x250 and code % 97):
            continue
        taken += same(pair, f" {chr(code)}a") == abi.OK
    assert taken > 5_000


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (content("smolvla", model={"dropout": 0.5}), "dropout"),
        (content("pi0", normalizer={"type": "NFKC"}), "NFKC"),
        (content("smolvla", pre_tokenizer=sequence({"type": "BertPreTokenizer"})), "BertPre"),
    ],
    ids=["dropout", "nfkc", "bert"],
)
def test_other_rules_are_refused_by_name(
    release: Path, tmp_path: Path, text: str, rule: str
) -> None:
    copied = tiny.link_release(release, tmp_path / "release")
    with Policy(with_tokenizer(copied, text)) as policy:
        status, _, error = tokenize(policy, b"pick up the cube")
    assert status == abi.INCOMPATIBLE
    assert rule in error


def test_special_tokens_are_no_text(pair: tuple[Policy, Tokenizer]) -> None:
    mark = pair[1]._special[0]
    assert same(pair, f"pick {mark} up") == abi.INVALID_ARGUMENT
