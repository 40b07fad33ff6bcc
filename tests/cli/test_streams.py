"""Output where the world ends: other encodings, closed, full and narrow streams, no home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libra_edge.cli._streams import fitting
from tests.bundle.examples import make_release

RUN = [sys.executable, "-m", "libra_edge.cli"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    make_release(tmp_path)
    return tmp_path


def run(*words: str, shell: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *RUN, *words]
    return subprocess.run(command, env=os.environ | env, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("encoding", "env"),
    [
        ("ascii", {"PYTHONIOENCODING": "ascii"}),
        ("latin-1", {"PYTHONIOENCODING": "latin-1"}),
        ("cp437", {"PYTHONIOENCODING": "cp437:strict"}),
        ("ascii", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("utf-8", {"LANG": "C", "LC_ALL": ""}),
        ("utf-8", {"PYTHONIOENCODING": "utf-8:strict"}),
    ],
)
def test_every_encoding_shows_the_same(place: Path, encoding: str, env: dict[str, str]) -> None:
    usual = json.loads(run("inspect", "example", "--json").stdout)
    result = run("inspect", "example", "--layers", **env)
    assert result.returncode == 0, result.stderr
    shown = result.stdout.decode(encoding)
    assert shown.splitlines()[-1].startswith("ok: example: 13 members")
    assert ("faster × 1.2" if encoding == "utf-8" else "faster ") in shown
    in_json = run("inspect", "example", "--json", **env)
    assert json.loads(in_json.stdout.decode(encoding)) == usual
    failed = run("inspect", "nö-such", **env)
    assert failed.returncode == 2
    assert b"error[not-a-checkpoint]" in failed.stderr
    assert b"Traceback" not in failed.stderr


def test_what_an_encoding_lacks_is_said_in_plain_words() -> None:
    class Ascii:
        encoding = "ascii"

    stream: object = Ascii()
    shown = fitting("1.2 × – ≥ é \udcff 日", stream)  # type: ignore[arg-type]
    assert shown == "1.2 x - >= \\xe9 \\xff \\u65e5"


NAMES = ("a b", "it's", "-x", "nö", "$(touch pwned)", "b\udcff", "tab\there", "a'\x1b[31m\\")


@pytest.mark.parametrize("name", NAMES)
def test_the_next_line_can_be_pasted(place: Path, name: str) -> None:
    Path("example").rename(name)
    result = run("inspect", "--", name)
    assert result.returncode == 0, result.stderr
    assert b"\x1b" not in result.stdout + result.stderr
    first, last = result.stderr.decode().splitlines()[0], result.stdout.decode().splitlines()[-1]
    assert last.startswith("ok: ")
    command = first.removeprefix("next: libra-edge ")
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True
    ).stdout.split(b"\0")
    assert words[0] == b"verify"
    assert not words[1].startswith(b"-")
    assert Path(os.fsdecode(words[1])).resolve() == place / name
    assert not (place / "pwned").exists()


@pytest.mark.parametrize("words", [("inspect", "example"), ("targets", "--json"), ("--help",)])
def test_a_reader_that_leaves_is_no_failure_of_ours(place: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([*RUN, *words], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 141
    assert b"Traceback" not in said
    assert b"Exception ignored" not in said


@pytest.mark.parametrize("words", [("inspect", "example"), ("targets", "--json"), ("--version",)])
def test_output_that_cannot_be_written_is_not_success(place: Path, words: tuple[str, ...]) -> None:
    result = run(*words, shell=">/dev/full")
    assert result.returncode == 1
    assert b"error[output-not-written]" in result.stderr
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_change_no_exit_code(place: Path, shell: str) -> None:
    assert run("inspect", "example", shell=shell).returncode == 0
    assert run("inspect", "nothing", shell=shell).returncode == 2
    # A file that is opened must not take the place of the closed stream and receive the output.
    assert run("pack", "example", "--out", "packed.libra", "--force", shell=shell).returncode == 0
    assert run("inspect", "packed.libra").returncode == 0


@pytest.mark.parametrize("home", ["/dev/null/x", "/proc/x", "/sys/x"])
def test_a_home_that_keeps_nothing_is_told_with_the_variable(place: Path, home: str) -> None:
    assert run("pack", "example").returncode == 0
    env = {"HOME": home, "XDG_CACHE_HOME": ""}
    assert run("inspect", "example.libra", **env).returncode == 0
    result = run("verify", "example.libra", "--golden-only", **env)
    assert result.returncode == 2
    assert b"error[cache-not-writable]" in result.stderr
    assert home.encode() in result.stderr
    assert b"XDG_CACHE_HOME" in result.stderr


@pytest.mark.parametrize(
    "env",
    [
        {"COLUMNS": "40"},
        {"COLUMNS": "0"},
        {"COLUMNS": "wide"},
        {"TERM": "dumb"},
        {"TERM": "no-such-terminal"},
        {"TMPDIR": "/nowhere"},
        {"PYTHONWARNINGS": "error"},
    ],
)
def test_odd_environments(place: Path, env: dict[str, str]) -> None:
    for words in (("inspect", "example"), ("doctor",), ("recipes",)):
        result = run(*words, **env)
        assert result.returncode == 0, result.stderr
        assert b"ok: " in result.stdout.splitlines()[-1]
        if env == {"COLUMNS": "40"}:
            lines = result.stdout.decode().splitlines()[:-1]
            assert max(map(len, lines)) <= 40, max(lines, key=len)


def test_a_strict_umask_keeps_releases_readable_by_their_owner(place: Path) -> None:
    before = os.umask(0o077)
    try:
        assert run("pack", "example").returncode == 0
        assert run("unpack", "example.libra", "--out", "again").returncode == 0
    finally:
        os.umask(before)
    assert run("inspect", "again").returncode == 0
