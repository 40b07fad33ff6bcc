"""A release on several robots of this machine, with the Ansible that the extra `fleet` installs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libra_edge.deploy.fleet.playbook import COLLECTIONS, FleetRequest, flash_fleet
from libra_edge.errors import InputError, LibraError
from tests.deploy.robots import GOLDEN, Sshd, current, needs_sshd, sshd, write

pytest.importorskip("ansible", reason="needs the extra fleet")
RUN = [sys.executable, "-c", "from libra_edge.cli.app import main; main()"]


def inventory(folder: Path, robots: int, **variables: Any) -> Path:
    hosts = {f"arm-{n}": {"libra_root": str(folder / f"robot-{n}")} for n in range(robots)}
    path = folder / "inventory.json"
    shared = {"ansible_connection": "local"} | variables
    path.write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))
    return path


def request(release: Path, robots: Path, **changes: Any) -> FleetRequest:
    words: dict[str, Any] = {"allow_unsigned": True, "mark_good": True}
    return FleetRequest(release, robots, **(words | changes))


def test_waves_and_doing_it_again(tmp_path: Path) -> None:
    robots, lines = inventory(tmp_path, 3), list[str]()
    example = write(tmp_path)
    planned = flash_fleet(request(example, robots, check=True), lines.append)
    assert planned.complete
    assert {said["condition"] for said in planned.robots.values()} == {"planned"}
    assert not list(tmp_path.glob("robot-*"))
    done = flash_fleet(request(example, robots, waves="1,100%"), lines.append)
    assert done.complete
    assert [done.robots[f"arm-{n}"]["wave"] for n in range(3)] == [1, 2, 2]
    assert {current(tmp_path / f"robot-{n}") for n in range(3)} == {"example"}
    again = flash_fleet(request(example, robots), lines.append)
    assert not any(said["changed"] for said in again.robots.values())
    assert max(map(len, lines)) <= 80


def test_a_canary_that_fails_its_self_test_spares_the_others(tmp_path: Path) -> None:
    robots = inventory(tmp_path, 2)
    flash_fleet(request(write(tmp_path), robots))
    broken = write(tmp_path, "broken", members={GOLDEN: b"BAD"})
    done = flash_fleet(request(broken, robots))
    assert (done.complete, done.failed, set(done.robots)) == (False, ["arm-0"], {"arm-0"})
    assert done.robots["arm-0"]["code"] == "self-test-failed"
    assert {current(tmp_path / f"robot-{n}") for n in range(2)} == {"example"}


def test_a_robot_that_is_not_well_ends_the_waves_and_rolls_back(tmp_path: Path) -> None:
    robots = inventory(tmp_path, 2)
    flash_fleet(request(write(tmp_path), robots))
    second = write(tmp_path, "second")
    words = {"mark_good": False, "health_timeout_s": 1, "wait_s": 8}
    done = flash_fleet(request(second, robots, **words))
    assert done.robots["arm-0"]["code"] == "rolled-back"
    assert set(done.robots) == {"arm-0"}
    assert {current(tmp_path / f"robot-{n}") for n in range(2)} == {"example"}


def test_a_budget_of_failures(tmp_path: Path) -> None:
    robots = inventory(tmp_path, 3)
    (tmp_path / "robot-0").write_text("no folder")  # this robot cannot take anything
    done = flash_fleet(request(write(tmp_path), robots, waves="2,1", max_fail_percentage=50))
    assert (done.failed, set(done.robots)) == (["arm-0"], {"arm-0", "arm-1", "arm-2"})
    assert current(tmp_path / "robot-2") == "example"
    robots = inventory(tmp_path, 4)
    done = flash_fleet(request(write(tmp_path, "second"), robots, waves="1,3"))
    assert set(done.robots) == {"arm-0"}
    only = flash_fleet(request(tmp_path / "second", robots, limit="arm-3"))
    assert set(only.robots) == {"arm-3"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@needs_sshd
def test_over_ssh_with_the_inventorys_words(server: Sshd, tmp_path: Path) -> None:
    hosts = server.folder / "config.known"
    args = f"-o UserKnownHostsFile={hosts} -o GlobalKnownHostsFile=/dev/null"
    words = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": server.port,
        "ansible_ssh_private_key_file": str(server.folder / "client"),
    }
    robots = inventory(tmp_path, 2, **words, ansible_ssh_common_args=args)
    done = flash_fleet(request(write(tmp_path), robots))
    assert done.complete, done.robots
    assert {current(tmp_path / f"robot-{n}") for n in range(2)} == {"example"}
    nobody = tmp_path / "nobody"
    loose = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={nobody}"
    robots = inventory(tmp_path, 1, **words, ansible_ssh_common_args=loose)
    done = flash_fleet(request(write(tmp_path, "second"), robots))
    assert done.robots["arm-0"]["code"] == "host-key-unknown"
    assert not nobody.exists()


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - libra.edge.libra_release: {{release: {release}, state: {state}, root: "{{{{ libra_root }}}}",
        allow_unsigned: true}}
"""


def play(folder: Path, robots: Path, release: Path, state: str, *words: str) -> str:
    book = folder / "book.yml"
    book.write_text(PLAYBOOK.format(release=release, state=state))
    run = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", robots, book, *words],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
            "LC_ALL": "C.UTF-8",
        },
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_module_in_a_playbook_of_ones_own(tmp_path: Path) -> None:
    robots = inventory(tmp_path, 1)
    example, second = write(tmp_path), write(tmp_path, "second")
    shown = play(tmp_path, robots, example, "active", "--check", "--diff")
    assert "-runs nothing" in shown
    assert "+runs example" in shown
    assert "changed=1" in shown
    assert not (tmp_path / "robot-0").exists()
    assert "changed=1" in play(tmp_path, robots, example, "active")
    assert "changed=0" in play(tmp_path, robots, example, "active")
    assert "changed=1" in play(tmp_path, robots, second, "installed")
    assert "changed=0" in play(tmp_path, robots, second, "installed")
    assert current(tmp_path / "robot-0") == "example"
    assert "changed=1" in play(tmp_path, robots, second, "active")
    assert "changed=1" in play(tmp_path, robots, second, "rolled_back", "--check")
    assert current(tmp_path / "robot-0") == "second"
    assert "changed=1" in play(tmp_path, robots, second, "rolled_back")
    assert "changed=0" in play(tmp_path, robots, second, "rolled_back")
    assert current(tmp_path / "robot-0") == "example"


def test_the_module_is_documented() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ansible", "doc", "libra.edge.libra_release"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "LC_ALL": "C.UTF-8"},
    )
    assert "rolled_back" in run.stdout


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"waves": "0,1"}, "waves-invalid"),
        ({"waves": "1,200%"}, "waves-invalid"),
        ({"waves": ""}, "waves-invalid"),
        ({"inventory": Path("nothing")}, "no-inventory"),
        ({"allow_unsigned": False}, "release-unsigned"),
    ],
)
def test_refused_before_ansible_starts(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    robots = changes.pop("inventory", None) or inventory(tmp_path, 1)
    with pytest.raises(LibraError) as raised:
        flash_fleet(request(write(tmp_path), robots, **changes))
    assert raised.value.code == code


def test_an_inventory_without_robots(tmp_path: Path) -> None:
    (tmp_path / "robots.yml").write_text("all: {hosts: {}}\n")
    with pytest.raises(LibraError) as raised:
        flash_fleet(request(write(tmp_path), tmp_path / "robots.yml"))
    assert raised.value.code == "no-robots"


def test_without_ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libra_edge.deploy.fleet.playbook.find_spec", lambda _: None)
    with pytest.raises(LibraError) as raised:
        flash_fleet(request(write(tmp_path), inventory(tmp_path, 1)))
    assert raised.value.code == "no-ansible"
    assert "libra-edge[fleet]" in raised.value.remedy


def test_the_command(tmp_path: Path) -> None:
    robots, release = inventory(tmp_path, 2), write(tmp_path)
    words = ["flash", str(release), "--inventory", str(robots), "--allow-unsigned", "--mark-good"]
    environment = {**os.environ, "COLUMNS": "80", "LC_ALL": "C", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    run = subprocess.run([*RUN, *words, "--json"], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)["result"]
    assert set(said["robots"]) == {"arm-0", "arm-1"}
    run = subprocess.run([*RUN, *words], capture_output=True, text=True, env=environment)
    shown = run.stdout.splitlines() + run.stderr.splitlines()
    assert max(map(len, shown)) <= 80
    assert "2 of 2 robots" in shown[[line.startswith("ok:") for line in shown].index(True)]
    both = subprocess.run(
        [*RUN, *words, "./robot", "--json"], capture_output=True, text=True, env=environment
    )
    assert json.loads(both.stdout)["error"]["code"] == "robot-or-inventory"


def test_ctrl_c(tmp_path: Path) -> None:
    robots = inventory(tmp_path, 2)
    flash_fleet(request(write(tmp_path), robots))
    (tmp_path / "robot-0" / "slow").write_text("30")
    words = ["flash", str(write(tmp_path, "second")), "--inventory", str(robots)]
    process = subprocess.Popen(
        [*RUN, *words, "--allow-unsigned"],
        stderr=subprocess.PIPE,
        text=True,
        # A suite in the background has Ctrl-C switched off, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        if (tmp_path / "robot-0" / "incoming").is_dir():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "runs the old release or the new one" in errors
    assert {current(tmp_path / f"robot-{n}") for n in range(2)} == {"example"}


def test_errors_are_of_the_kind_that_a_user_can_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        flash_fleet(request(tmp_path / "nothing", inventory(tmp_path, 1)))
