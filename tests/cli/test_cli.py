"""The program as a user meets it: exit codes, stdout and stderr apart, JSON, errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from libra_edge.bundle.members import MANIFEST
from libra_edge.cli import app as program
from libra_edge.cli import targets as targets_command
from libra_edge.errors import ExitCode, ParityError
from tests.bundle.examples import make_release

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-c", "from libra_edge.cli.app import main; main()"]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_release(tmp_path)
    return Path("example")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(program.app, list(words))


def invoke_json(*words: str) -> tuple[int, dict[str, Any]]:
    result = invoke(*words, "--json")
    envelope = json.loads(result.stdout)
    assert envelope["schema_version"] == 1
    assert envelope["ok"] == (result.exit_code == 0)
    return result.exit_code, envelope


def test_help_and_version() -> None:
    for words in ((), ("--help",), ("-h",)):
        result = invoke(*words)
        assert result.exit_code == 0
        assert all(name in result.stdout for name in program.COMMANDS)
    assert invoke("--version").stdout == "libra-edge 0.1.0\n"


GROUPS = {"dataset": ("check", "describe"), "keys": ("generate", "show", "rotate")}


def _inner_help(group: str) -> str:
    """The help of a group's commands, as far as each one takes `--json`."""
    pages = [invoke(group, name, "--help").stdout for name in GROUPS[group]]
    return min(pages, key=lambda page: "--json" in page)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_has_help_json_and_its_listed_name(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0, result.stderr
    assert "--json" in (result.stdout if name not in GROUPS else _inner_help(name))
    assert f"libra-edge {name}" in result.stdout


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("words", [("targets",), ("recipes",), ("inspect", "example"), ("doctor",)])
def test_narrow_terminals(
    release: Path, monkeypatch: pytest.MonkeyPatch, columns: int, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = invoke(*words)
    lines = result.stdout.splitlines()[:-1]  # the verdict is one line however long
    assert lines
    assert max(map(len, lines)) <= columns


def test_help_fits_a_narrow_terminal() -> None:
    run = subprocess.run(
        [*RUN, "--help"],
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert max(map(len, run.stdout.splitlines())) <= 60


def test_results_on_stdout_narration_on_stderr(release: Path) -> None:
    result = invoke("inspect", "example")
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    assert last == "ok: example: 13 members, 9.9 KiB, every byte as the manifest says"
    assert result.stderr == "next: libra-edge verify example\n"
    for text in ("cpu-x86_64", "loop", "faster × 1.2", "parity: pass on 8 samples"):
        assert text in result.stdout


def test_json_is_all_there_is_on_stdout(release: Path) -> None:
    status, envelope = invoke_json("inspect", "example")
    assert status == 0
    assert envelope["command"] == "inspect"
    assert envelope["result"]["manifest"] == json.loads((release / MANIFEST).read_text())
    assert invoke("inspect", "example", "--json").stderr == ""


def test_pack_and_unpack(release: Path) -> None:
    assert invoke_json("pack", "example")[1]["result"]["path"] == "example.libra"
    assert invoke("pack", "example").exit_code == 0
    assert invoke_json("inspect", "example.libra")[0] == 0
    assert invoke("unpack", "example.libra", "--out", "again").exit_code == 0
    assert (Path("again") / MANIFEST).read_bytes() == (release / MANIFEST).read_bytes()
    status, envelope = invoke_json("unpack", "example.libra", "-o", ".")
    assert (status, envelope["error"]["code"]) == (2, "destination-exists")


def test_list_targets_and_recipes() -> None:
    names = [t["name"] for t in invoke_json("targets")[1]["result"]["targets"]]
    assert {"cpu-x86_64", "rtx4090", "jetson-agx-orin"} <= set(names)
    recipes = {r["name"]: r["targets"] for r in invoke_json("recipes")[1]["result"]["recipes"]}
    assert {"cpu-x86_64", "rtx4090", "jetson-agx-orin"} <= set(recipes["int8"])
    assert recipes["nvfp4"] == ["jetson-agx-thor", "jetson-agx-thor-jp72", "rtx5090"]


def test_one_target_is_shown_in_full() -> None:
    result = invoke("targets", "show", "agibot-g1")
    assert result.exit_code == 0
    for words in ("jetson-agx-orin", "204.8 GB/s", "int8 85 T/s", "built on the robot", "10.3"):
        assert words in result.stdout
    shown = invoke("targets", "show", "rtx4090").stdout
    assert re.search(r"planner by default +tensorrt_rtx, fp16 *\n", shown)
    assert re.search(r"refiner by default +tensorrt_rtx, fp16; loop", shown)
    body = invoke_json("targets", "show", "rtx4090")[1]["result"]["target"]
    assert body["compute_capability"] == "8.9"
    assert invoke_json("targets", "show")[1]["error"]["code"] == "usage"
    assert (
        invoke_json("targets", "show", "rtx4091")[1]["error"]["remedy"] == "Did you mean 'rtx4090'?"
    )


@pytest.mark.parametrize(
    ("words", "code", "remedy"),
    [
        (("inspct", "x"), "unknown-command", "Did you mean 'inspect'?"),
        (("inspect",), "usage", "See `libra-edge inspect --help`."),
        (("inspect", "x", "--nope"), "usage", "See `libra-edge inspect --help`."),
        (("--nope",), "usage", "See `libra-edge --help`."),
        (("inspect", "nothing"), "not-a-checkpoint", "Name a checkpoint folder"),
        (("pack", "nothing"), "not-a-release", "Name a release directory"),
        (("unpack", "nothing.libra"), "not-a-release", "Name a .libra file."),
        (("doctor", "--extra", "comple"), "unknown-extra", "Did you mean 'compile'?"),
    ],
)
def test_usage_errors_have_code_fact_remedy(
    words: tuple[str, ...], code: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error[{code}]: ")
    assert second.startswith(f"  remedy: {remedy}")
    status, envelope = invoke_json(*words)
    assert status == ExitCode.USAGE
    assert envelope["error"]["code"] == code
    assert envelope["error"]["exit_code"] == 2


def test_a_changed_byte_exits_5(release: Path) -> None:
    (release / "golden/actions.npy").write_bytes(b"x")
    status, envelope = invoke_json("inspect", "example")
    assert status == ExitCode.INTEGRITY
    assert envelope["error"]["code"] == "member-changed"
    assert "golden/actions.npy" in envelope["error"]["fact"]


def test_doctor_fails_only_for_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from libra_edge.deploy import doctor

    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert invoke("doctor").exit_code == 0
    status, envelope = invoke_json("doctor", "--extra", "compile")
    assert status == ExitCode.FAILED
    missing = [c for c in envelope["result"]["checks"] if c["status"] == "missing"]
    assert {c["name"] for c in missing} >= {"c++ compiler", "onnxruntime library"}
    assert all(check["fix"] for check in missing)


def fail_with(error: BaseException) -> Any:
    def fail() -> dict[str, object]:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ParityError("p", "It differs.", "Look."), ExitCode.PARITY, "p"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (ZeroDivisionError("oops"), ExitCode.FAILED, "internal-error"),
    ],
)
def test_every_way_to_fail_is_rendered(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: ExitCode, code: str
) -> None:
    monkeypatch.setattr(targets_command.catalog, "list_targets", fail_with(error))
    result = invoke("targets")
    assert result.exit_code == status
    assert f"error[{code}]: " in result.stderr
    assert ("Traceback" in result.stderr) == (code == "internal-error")
    assert ("This is a bug" in result.stderr) == (code == "internal-error")
    assert invoke_json("targets")[1]["error"]["code"] == code


def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    code = (
        # A job in the background starts with the signal ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from libra_edge import catalog\n"
        "import time\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "catalog.list_targets = wait\n"
        "import sys; sys.argv = ['libra-edge', 'targets']\n"
        "from libra_edge.cli.app import main; main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "what stood there before still stands" in stderr


@pytest.mark.parametrize(("env", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color(env: dict[str, str], colored: bool) -> None:
    base = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "TERM", "FORCE_COLOR"}}
    run = subprocess.run(
        [*RUN, "targets"],
        env={**base, "FORCE_COLOR": "1", "TERM": "xterm-256color", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("\x1b[32m" in run.stdout or "\x1b[1;32m" in run.stdout) == colored


def test_a_closed_pipe_is_no_traceback() -> None:
    run = subprocess.run(
        f"'{sys.executable}' -c 'from libra_edge.cli.app import main; main()' doctor | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in run.stderr


def test_completion_knows_commands_and_options() -> None:
    def complete(words: str) -> str:
        run = subprocess.run(
            RUN,
            env={
                **os.environ,
                "_LIBRA_EDGE_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout

    assert complete("libra-edge insp").split() == ["inspect"]
    assert "--force" in complete("libra-edge pack --fo").split()


def test_help_is_fast_because_it_imports_little() -> None:
    """Modules, not milliseconds, which a loaded machine cannot promise."""
    code = (
        "import sys; sys.argv = ['libra-edge', '--help']\n"
        "from libra_edge.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'pydantic', 'torch') if m in sys.modules], file=sys.stderr)"
    )
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stderr.strip() == "[]"
    assert time.monotonic() - started < 20
