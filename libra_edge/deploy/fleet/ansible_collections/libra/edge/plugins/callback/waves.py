"""A fleet's flash in lines that fit a terminal: one per robot and step, wave by wave."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: waves
type: stdout
short_description: one line per robot and step, wave by wave
description: For the playbook libra.edge.flash; results also go to the file LIBRA_FLEET_RESULTS.
author: the Libra Edge authors
"""
WIDTH = 78


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible's classes are untyped
    """Prints what the module found, and remembers it for whoever started the playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "libra.edge.waves"

    def __init__(self) -> None:
        super().__init__()
        self._wave = 0
        self._robots: dict[str, dict[str, Any]] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A wave begins: Ansible tells each of a play's batches as a play."""
        self._wave += 1

    def v2_runner_on_ok(self, result: Any) -> None:
        """A robot is in the state that a task wanted."""
        said = result._result
        if "condition" in said:
            what = said["condition"]
            word = what if what in ("good", "planned") else f"{what}:"
            runs = "would run" if what == "planned" else "runs"
            line = "marked good" if word == "good" else f"{word} {runs} {said['runs']}"
            self._tell(result, line, failed=False)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A robot is not; it runs what it ran, and its words say so."""
        self._tell(result, f"FAILED: {result._result.get('msg', '')}", failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A robot did not answer."""
        self._tell(result, f"UNREACHABLE: {result._result.get('msg', '')}", failed=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The end: what became of each robot, for the command line."""
        path = os.environ.get("LIBRA_FLEET_RESULTS")
        if path:
            Path(path).write_text(json.dumps(self._robots), "utf-8")

    def _tell(self, result: Any, text: str, *, failed: bool) -> None:
        name, said = result._host.get_name(), result._result
        kept = ("condition", "runs", "code", "msg", "sent_bytes", "slot", "changed")
        words = {key: said[key] for key in kept if key in said}
        before = self._robots.get(name, {})
        self._robots[name] = {**before, **words, "wave": self._wave, "failed": failed}
        lines = textwrap.wrap(
            f"wave {self._wave}: {name}: {text}", WIDTH, subsequent_indent=" " * 8
        )
        self._display.display("\n".join(lines), color="red" if failed else None)
