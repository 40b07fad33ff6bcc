"""Options that spread work are refused where they would spread none."""

from __future__ import annotations

from pathlib import Path

import pytest

from libra_edge.cli import app as program
from libra_edge.errors import ExitCode, InputError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("verify", "release", "--ray", "local"), "--simulate"),
        (("verify", "release", "--jobs", "2"), "--simulate"),
        (("compile", "policy", "--target", "a,b", "--ray", "local", "--memory-gib", "4"), "Ray"),
        (("compile", "policy", "--ray", "local"), "several releases"),
        (("simulate", "release", "--shard", "1/2"), "--results"),
        (("simulate", "release", "--results", "r.jsonl", "--mode", "async"), "--results"),
        (("simulate", "release", "--replay", "data", "--ray", "local"), "one process"),
    ],
)
def test_refused_before_anything_is_read(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="usage") as caught:
        program.load_command(words[0]).main(list(words[1:]), standalone_mode=False)
    assert says in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []
