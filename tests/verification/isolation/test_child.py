"""Whatever a release's code does to its process, the verifier lives and says what it was."""

from __future__ import annotations

import time

import numpy as np
import pytest

from libra_edge.errors import CrashedError, ExitCode, InputError
from libra_edge.verification.isolation.child import Child, call_apart
from libra_edge.verification.isolation.messages import Nonsense, pack, unpack

BREAKER = "tests.verification.isolation.breakers:Breaker"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("segfault", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("leave", "exit code 0"),
        ("hang", "no answer within 3 s"),
        ("allocate", "memory"),
        ("babble", "JSON"),
    ],
)
def test_every_end_is_an_error_with_its_name(method: str, words: str) -> None:
    with Child(BREAKER, {}) as child:
        child._time_limit_s = 3.0
        with pytest.raises(CrashedError) as caught:
            child.call(method)
    assert words.lower() in caught.value.fact.lower()
    assert method in caught.value.fact
    assert caught.value.exit_code is ExitCode.PARITY


def test_an_end_while_opening_and_every_call_after_an_end() -> None:
    with pytest.raises(CrashedError, match="exit code 0, during open"):
        Child(BREAKER, {"at_once": "leave"})
    with Child(BREAKER, {}) as child:
        for _ in range(2):
            with pytest.raises(CrashedError, match="SIGABRT"):
                child.call("abort")


def test_closing_ends_a_process_that_hangs() -> None:
    child = Child(BREAKER, {})
    process = child._process
    begin = time.monotonic()
    child.close()
    child.close()
    assert process.poll() is not None
    assert time.monotonic() - begin < 60


def test_arrays_words_and_errors_cross_as_they_are() -> None:
    arrays = [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.array([np.nan, np.inf], np.float32),
        np.zeros((0, 4), np.uint8),
    ]
    with Child(BREAKER, {}) as child:
        told, found = child.call("echo", *arrays, word="déjà vu")
        with pytest.raises(InputError, match="of-its-own"):
            child.call("refuse")
    assert told == {"word": "déjà vu"}
    for array, one in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(array, one)
        assert array.dtype == one.dtype


def test_a_function_answers_once() -> None:
    told = call_apart("tests.verification.isolation.breakers:answer", {"number": 4})
    assert told == {"number": 5}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xff\xff\xff",
        pack({"a": 1})[:-1],
        pack({"a": 1}) + b"x",
        pack({}, [np.zeros(3)])[:-8],
        b"\x02\x00\x00\x00[]",
        pack({}).replace(b'"arrays": []', b'"arrays": 12'),
        pack({}, [np.zeros(2)]).replace(b"float64", b"object "),
    ],
)
def test_nonsense_is_refused_and_never_run(message: bytes) -> None:
    with pytest.raises(Nonsense):
        unpack(message)
