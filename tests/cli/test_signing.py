"""`keys`, `sign` and `verify --signature-only` as an operator meets them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from libra_edge.bundle.members import SIGNATURE
from libra_edge.cli import app as program
from libra_edge.errors import ExitCode
from tests.bundle.examples import make_release

WORDS = "correct horse battery"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    make_release(tmp_path)
    return tmp_path


def invoke(*words: str) -> Result:
    return CliRunner().invoke(program.app, list(words))


def result_of(*words: str) -> dict[str, Any]:
    done = invoke(*words, "--json")
    assert done.exit_code == 0, done.output
    envelope: dict[str, Any] = json.loads(done.stdout)
    result: dict[str, Any] = envelope["result"]
    return result


def refused(*words: str, status: ExitCode, code: str) -> str:
    done = invoke(*words)
    assert done.exit_code == status, done.output
    assert f"error[{code}]" in done.stderr
    assert "remedy" in done.stderr
    return done.stderr


CHECK = ("verify", "example", "--signature-only", "--trust", "trust.json")


def test_from_a_key_to_a_signature_that_is_taken(folder: Path) -> None:
    made = result_of("keys", "generate", "robot.key")
    result_of("keys", "trust", "add", "trust.json", "robot.pub")
    signed = result_of("sign", "example", "--key", "robot.key")
    assert signed["key_id"] == made["id"]
    found = result_of(*CHECK)
    assert (found["key_id"], found["role"]) == (made["id"], "release")
    assert result_of("inspect", "example")["signed"] is True
    assert "not checked" in invoke("inspect", "example").stdout
    assert (folder / "example.provenance.dsse.json").is_file()
    result_of("pack", "example")
    result_of("verify", "example.libra", "--signature-only", "--trust", "trust.json")
    assert invoke("diff", "example", "example.libra").exit_code == 0


def test_what_is_not_let_in(folder: Path) -> None:
    result_of("keys", "generate", "robot.key")
    result_of("keys", "generate", "other.key")
    result_of("keys", "trust", "add", "trust.json", "other.pub")
    integrity = ExitCode.INTEGRITY
    refused(*CHECK, status=integrity, code="release-unsigned")
    result_of("sign", "example", "--key", "robot.key")
    refused(*CHECK, status=integrity, code="key-unknown")
    result_of("keys", "trust", "add", "trust.json", "robot.pub", "--role", "development")
    refused(*CHECK, status=integrity, code="key-role")
    result_of("keys", "trust", "allow", "trust.json", "--development")
    assert result_of(*CHECK)["role"] == "development"
    (folder / "example/golden/state.npy").write_bytes(b"other")
    refused(*CHECK, status=integrity, code="member-changed")


def test_removing_a_key_needs_only_how_its_id_begins() -> None:
    made = result_of("keys", "generate", "robot.key")
    result_of("keys", "trust", "add", "trust.json", "robot.pub")
    result_of("sign", "example", "--key", "robot.key")
    assert result_of("keys", "trust", "remove", "trust.json", made["id"][:8])["id"] == made["id"]
    refused(*CHECK, status=ExitCode.INTEGRITY, code="key-unknown")
    refused(
        "keys", "trust", "remove", "trust.json", "00", status=ExitCode.USAGE, code="key-unknown"
    )


def test_rotation_keeps_both_for_a_while() -> None:
    result_of("keys", "generate", "old.key")
    result_of("keys", "trust", "add", "trust.json", "old.pub")
    result_of("sign", "example", "--key", "old.key")
    made = result_of("keys", "rotate", "old.pub", "new.key", "--trust", "trust.json")
    assert result_of(*CHECK)["key_id"] == made["old_id"]
    result_of("sign", "example", "--key", "new.key")
    assert result_of(*CHECK)["key_id"] == made["id"]
    keys = {key["id"]: key for key in result_of("keys", "show", "trust.json")["keys"]}
    assert keys[made["old_id"]]["expires"] == made["old_expires"]
    assert keys[made["old_id"]]["expires"] < keys[made["id"]]["expires"]
    refused(
        *("keys", "rotate", "old.pub", "new.key", "--trust", "trust.json"),
        status=ExitCode.USAGE,
        code="key-exists",
    )


def test_show_tells_the_public_half_alone(folder: Path) -> None:
    result_of("keys", "generate", "robot.key")
    private = (folder / "robot.key").read_text().splitlines()[1]
    for name in ("robot.key", "robot.pub"):
        said = invoke("keys", "show", name)
        assert "PUBLIC KEY" in said.stdout
        assert private not in said.output
        assert "PRIVATE" not in said.output
    assert result_of("keys", "show", "robot.key") == result_of("keys", "show", "robot.pub")


def test_a_passphrase_from_a_variable_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOT_PASSPHRASE", WORDS)
    env = ("--passphrase-env", "ROBOT_PASSPHRASE")
    outputs = [invoke("keys", "generate", "robot.key", *env)]
    outputs.append(invoke("sign", "example", "--key", "robot.key", *env))
    assert [done.exit_code for done in outputs] == [0, 0]
    monkeypatch.setenv("ROBOT_PASSPHRASE", WORDS + "!")
    outputs.append(invoke("sign", "example", "--key", "robot.key", *env))
    monkeypatch.delenv("ROBOT_PASSPHRASE")
    outputs.append(invoke("sign", "example", "--key", "robot.key", *env))
    outputs.append(invoke("sign", "example", "--key", "robot.key"))
    assert [done.exit_code for done in outputs[2:]] == [2, 2, 2]
    assert not [done.output for done in outputs if WORDS in done.output]


def on_a_terminal(folder: Path, *words: str, answers: tuple[str, ...]) -> tuple[int, str]:
    """Exit status, and what a terminal shows while each prompt is answered."""
    leader, follower = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "libra_edge.cli", *words],
        cwd=folder,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    shown = ""
    for answer in (*answers, None):
        while not (answer is not None and shown.endswith(": ")):
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                piece = b""
            if not piece:
                break
            shown += piece.decode()
        if answer is not None:
            os.write(leader, f"{answer}\n".encode())
            shown += "\n"
    os.close(leader)
    return run.wait(timeout=60), shown


def test_a_passphrase_is_asked_for_and_not_echoed(folder: Path) -> None:
    make = ("keys", "generate", "robot.key", "--passphrase")
    status, shown = on_a_terminal(folder, *make, answers=(WORDS, WORDS))
    assert (status, WORDS in shown) == (0, False), shown
    status, shown = on_a_terminal(folder, "sign", "example", "--key", "robot.key", answers=(WORDS,))
    assert (status, WORDS in shown, "signed by" in shown) == (0, False, True), shown
    make = ("keys", "generate", "second.key", "--passphrase")
    status, shown = on_a_terminal(folder, *make, answers=(WORDS, WORDS + "!"))
    assert (status, "differ" in shown, WORDS in shown) == (2, True, False), shown
    status, shown = on_a_terminal(folder, *make, answers=("",))
    assert status == 2
    assert not (folder / "second.key").exists()


def test_bad_words_on_the_command_line() -> None:
    result_of("keys", "generate", "robot.key")
    usage = ExitCode.USAGE
    refused("verify", "example", "--signature-only", status=usage, code="usage")
    refused("keys", "trust", "allow", "trust.json", status=usage, code="usage")
    refused("sign", "example", "--key", "none.key", status=usage, code="key-unreadable")
    refused("sign", "example", "--key", "robot.pub", status=usage, code="key-unusable")
    refused("sign", "nothing", "--key", "robot.key", status=usage, code="not-a-release")
    refused("sign", "example", "--key", "example", status=usage, code="key-unreadable")
    refused("keys", "show", "example/tokenizer.json", status=usage, code="key-unusable")
    refused(*CHECK[:-1], "none.json", status=usage, code="trust-unreadable")


def test_a_folder_that_may_not_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result_of("keys", "generate", "robot.key")

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.fsync", denied)
    refused("sign", "example", "--key", "robot.key", status=ExitCode.USAGE, code="cannot-write")
    refused("keys", "generate", "more.key", status=ExitCode.USAGE, code="cannot-write")
    assert not (folder / "example" / SIGNATURE).exists()
    assert sorted(p.name for p in folder.iterdir()) == ["example", "robot.key", "robot.pub"]
