"""`le_tokenize` gives Python's tokens, or refuses as Python does."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libra_edge.binding import abi
from libra_edge.binding.policy import Policy
from libra_edge.errors import InputError, LibraError
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer
from libra_edge.runtime import unicode_table
from tests.runtime import native_build
from tests.runtime import tiny_release as tiny
from tests.runtime.test_release import try_open

Copy = Callable[[], Path]
WORDS = (
    "open the tap öffne den hahn öppna kranen ouvre l'été ουδός ставь 水 栓 を 開け i̇z stop! ß a_b"
)


def tokenize(policy: Policy, text: bytes, count: int = tiny.T) -> tuple[int, list[int], str]:
    tokens = np.full(count, 77, np.int64)
    error = ctypes.create_string_buffer(abi.ERROR_SIZE)
    status = policy._library.le_tokenize(
        policy._open_handle, text, tokens.ctypes.data, count, error, len(error)
    )
    return status, tokens.tolist(), error.value.decode()


def with_tokenizer(release: Path, content: str) -> Path:
    tiny.replace(release / "tokenizer.json", content.encode())
    tiny.seal(release, tiny.manifest())
    return release


@pytest.fixture(scope="module")
def worded(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose policy knows words of many languages."""
    copied = tiny.link_release(release, tmp_path_factory.mktemp("words") / "release")
    return with_tokenizer(copied, word_tokenizer([WORDS]).to_str())


@pytest.fixture(scope="module")
def pair(worded: Path) -> Any:
    with Policy(worded) as policy:
        yield policy, Tokenizer(worded / "tokenizer.json", tiny.T)


def same(pair: tuple[Policy, Tokenizer], text: str) -> int:
    policy, python = pair
    status, tokens, error = tokenize(policy, text.encode())
    try:
        expected = python.encode(text).tolist()
    except InputError:
        assert status == abi.INVALID_ARGUMENT, text
        assert tokens == [77] * tiny.T
        assert error
        return status
    assert (status, tokens, error) == (abi.OK, expected, ""), text
    return status


def test_the_table_is_the_one_of_the_library() -> None:
    found = unicode_table.HEADER.read_text(encoding="utf-8")
    assert found == unicode_table.header(), "run `python -m libra_edge.runtime.unicode_table`"


def test_every_character_alone_and_in_a_word(pair: Any) -> None:
    """Each beside a known word, where it joins it or stands apart."""
    taken = 0
    for code in range(1, sys.maxunicode + 1, 1):
        if 0xD800 <= code < 0xE000 or (code > 0x3000 and code % 61):
            continue
        for text in (f"tap{chr(code)}", f"{chr(code)}!tap"):
            taken += same(pair, text) == abi.OK
    assert taken > 10_000


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [*WORDS.split(), *WORDS.upper().split(), " ", "\t", "\u3000", "\u00a0"]
            ),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
        ),
        max_size=7,
    ).map("".join)
)
def test_any_text(pair: Any, text: str) -> None:
    same(pair, text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=7).map(" ".join))
def test_known_words(pair: Any, text: str) -> None:
    same(pair, text)


def test_what_is_refused(pair: Any) -> None:
    policy, _ = pair
    for text in (b"", b"  ", b"nothing known", b"tap " * 6, b"tap" + b" tap" * 100_000):
        assert tokenize(policy, text)[0] == abi.INVALID_ARGUMENT
    for text in (
        b"tap \xff",
        b"\xc3",
        b"tap\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ):
        status, tokens, error = tokenize(policy, text)
        assert (status, tokens) == (abi.INVALID_ARGUMENT, [77] * tiny.T)
        assert "UTF-8" in error
    assert tokenize(policy, b"tap", tiny.T - 1)[0] == abi.INVALID_ARGUMENT
    loaded, handle = policy._library, policy._open_handle
    for arguments in ((None, b"tap", 1), (handle, None, 1), (handle, b"tap", None)):
        owner, text, given_room = arguments
        room = np.zeros(tiny.T, np.int64)
        address = room.ctypes.data if given_room else None
        assert loaded.le_tokenize(owner, text, address, tiny.T, None, 0) == abi.INVALID_ARGUMENT


TRUNCATION = {"max_length": 2, "strategy": "LongestFirst", "stride": 0}
ADDED = {"id": 1, "content": "[UNK]", "single_word": False, "lstrip": False, "rstrip": False}
ADDED |= {"normalized": False, "special": True}


def change(**parts: Any) -> str:
    return json.dumps(json.loads(word_tokenizer(["open the tap"]).to_str()) | parts)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (change(normalizer={"type": "NFKC"}), "normalizer"),
        (change(pre_tokenizer={"type": "Punctuation", "behavior": "Isolated"}), "pre-tokenizer"),
        (
            change(truncation={"max_length": 2, "strategy": "LongestFirst", "stride": 1}),
            "truncation",
        ),
        (
            change(
                added_tokens=[
                    {"id": 1, "content": "[UNK]", "single_word": True, "lstrip": False}
                    | {"rstrip": False, "normalized": False, "special": True}
                ]
            ),
            "added tokens",
        ),
    ],
)
def test_rules_that_it_does_not_have_are_refused_not_guessed(
    copy: Copy, content: str, rule: str
) -> None:
    with Policy(with_tokenizer(copy(), content)) as policy:
        status, tokens, error = tokenize(policy, b"open the tap")
        assert (status, tokens) == (abi.INCOMPATIBLE, [77] * tiny.T)
        assert rule in error
        policy.set_instruction(np.full(tiny.T, 2, np.int64))


def test_without_lower_case(copy: Copy) -> None:
    release = with_tokenizer(copy(), change(normalizer=None))
    with Policy(release) as policy:
        pair = policy, Tokenizer(release / "tokenizer.json", tiny.T)
        for text in ("open the tap", "Open the tap", "OPEN", "open THE tap!"):
            same(pair, text)


BROKEN = ["", "{", "[]", "{}", '{"model": {}}', '{"model": {"vocab": {}}}', "[" * 100_000]
VOCABULARIES = ["1", '{"[PAD]": -1}', '{"[PAD]": 1.5}', '{"[PAD]": "0"}', '{"[PAD]": 4294967295}']
BROKEN += [f'{{"model": {{"vocab": {v}}}}}' for v in [*VOCABULARIES, "[[]]", '[["a", 0.5]]']]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:40])
def test_a_tokenizer_that_is_none(copy: Copy, library: Path, content: str) -> None:
    release = with_tokenizer(copy(), content)
    status, text = try_open(release, library)
    assert status == abi.MALFORMED, text
    assert "tokenizer.json" in text
    with pytest.raises(LibraError):
        Policy(release)


def test_a_program_that_knows_the_header_alone(release: Path, tmp_path: Path) -> None:
    program = native_build.c_program("header_only", tmp_path, release)
    assert (native_build.C_SOURCES / "header_only.c").read_text().count("#include <libra") == 1
    result = native_build.run_c(program, release, "Open the  FAUCET", "12", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert "tiny for cpu-x86_64, 20 Hz, 5 tokens of 10, pad 0, unknown 1, flags 0" in lines
    assert "camera c1 4 x 6" in lines
    assert "state s0 [m] state -inf to inf, change inf, acceleration inf" in lines
    assert "action a2 [m] absolute 0.1 to 0.9, change inf, acceleration inf" in lines
    assert "action a3 [m] gripper -1 to 1, change inf, acceleration inf" in lines
    python = Tokenizer(release / "tokenizer.json", tiny.T).encode("open the faucet")
    assert f"tokens {' '.join(map(str, python))}" in lines
    assert "sync: 12 of 12 steps running" in lines
    assert lines[-1].startswith("async: ")
