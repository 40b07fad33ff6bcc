"""How a robot is named."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from libra_edge.deploy.robot import ROOT, Robot, parse_robot
from libra_edge.errors import InputError


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("arm-3", "arm-3", None, None),
        ("libra@10.0.0.3", "10.0.0.3", "libra", None),
        ("libra@arm.local:2222", "arm.local", "libra", 2222),
        ("ssh://libra@arm:22/", "arm", "libra", 22),
        ("u@[fe80::1%eth0]:22", "fe80::1%eth0", "u", 22),
        ("a@b@host", "host", "a@b", None),
    ],
)
def test_over_ssh(text: str, host: str, user: str | None, port: int | None) -> None:
    assert parse_robot(text) == Robot(text, host, ROOT, user, port)
    assert parse_robot(text, "/data/libra").root == PurePosixPath("/data/libra")


def test_a_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = PurePosixPath(tmp_path.resolve())
    assert parse_robot("./robot").root == here / "robot"
    assert parse_robot("../x").root == here.parent / "x"
    assert parse_robot(".").root == here
    assert parse_robot(str(tmp_path)).host is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "-oProxyCommand=touch", "u@-h", "-l@h", "h;rm", "a b", "h:0", "h:65536", "h:2:2"),
        *("u@", "@h", "::1", "h\n", "u@h`x`", "$(x)", "h'", "ssh://-oProxyCommand=x", "ssh://h/x"),
    ],
)
def test_what_names_no_robot(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_robot(text)
    assert raised.value.code == "robot-invalid"


@pytest.mark.parametrize("root", ["", "libra", "/", "/opt/../etc", "/a\nb", "/" + "x" * 2000])
def test_what_is_no_folder(root: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_robot("arm", root)
    assert raised.value.code == "root-invalid"


def test_a_folder_is_named_once() -> None:
    with pytest.raises(InputError) as raised:
        parse_robot("./robot", "/opt/libra")
    assert raised.value.code == "robot-twice"
