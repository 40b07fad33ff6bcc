from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from libra_edge.catalog import Recipe, Target, parse_entry
from libra_edge.cli import app
from tests.test_layers import FLOORS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    for path, text in generator().pages().items():
        assert path.read_text("utf-8") == text, f"{path.name} is stale: run `make docs`"


@pytest.mark.parametrize("root", [Target, Recipe])
def test_every_key_of_a_file_is_described(root: type[BaseModel]) -> None:
    for model in generator()._models(root):
        assert model.__doc__
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_the_reference_tells_bounds_and_defaults() -> None:
    recipes = generator().recipe_page()
    assert "| `samples` | `int` | `256` | ≥ 1, ≤ 4096 |" in recipes
    assert "| `action` | `float` | required | > 0, ≤ 1 |" in recipes
    targets = generator().target_page()
    assert "| `build` | `'host' \\| 'device'` | `\"host\"` |" in targets
    assert "| `software` | `Software` | its own defaults |" in targets


def test_the_recipe_that_is_shown_is_one() -> None:
    page = (ROOT / "docs/how-to/add-a-recipe.md").read_text("utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert parse_entry(Recipe, "int8-refiner", text).quantizes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_the_architecture_page_has_every_room_in_the_order_of_its_floor() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert len(page.splitlines()) < 80
    rooms = re.findall(r"`([\w./]+?)(?:/|\.py)?`", "".join(re.findall(r"^\| (.*?) \|", page, re.M)))
    floors = [room for room in rooms if room in FLOORS]
    assert floors == list(FLOORS)
    inner = {
        init.parent.relative_to(ROOT / "libra_edge").as_posix()
        for init in (ROOT / "libra_edge").rglob("__init__.py")
    }
    named = set(rooms) | {"compiler/quantization/algorithms", "."}
    assert not inner - named


def test_a_decision_that_was_replaced_says_by_which() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text("utf-8")
    pairs = re.findall(r"\[(\d{4})\]\(\S+\) \|[^|\n]*\(replaces [^|\n]*?(\d{4})\)", index)
    assert pairs
    for new, old in pairs:
        (page,) = folder.glob(f"{old}-*.md")
        title, _, second, *_ = page.read_text("utf-8").splitlines()
        assert title.startswith(f"# {old}")
        assert second.startswith("*Replaced")
        assert f"[{new}](" in page.read_text("utf-8").split("**Context.**")[0]


def test_every_page_is_listed_in_its_index() -> None:
    for folder in ("how-to", "explanation", "reference"):
        index = (ROOT / "docs" / folder / "README.md").read_text("utf-8")
        for page in (ROOT / "docs" / folder).glob("*.*"):
            assert page.name == "README.md" or page.suffix == ".svg" or f"({page.name})" in index


# Decisions are history: they name files as they were.
TODAY = [page for page in PAGES if page.parent.name not in ("decisions", "measurements")]


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_names_that_a_page_shows_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    folders = "libra_edge|cli|tests|targets|calibration|benchmarks|examples|docs"
    for path in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", text):
        assert (ROOT / path).exists() or "NAME" in path or "int8-refiner" in path, path
    for module, names in re.findall(r"^from (libra_edge[\w.]*) import ([\w, ]+)$", text, re.M):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    for path in re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)+\.(?:py|toml))`", text):
        assert any((base / path).exists() for base in (ROOT, ROOT / "libra_edge")), path
    for module, name in re.findall(r"`(libra_edge(?:\.[a-z_]{2,})+)(?:\.([A-Z]\w+))?`", text):
        found = importlib.import_module(module)
        assert not name or hasattr(found, name), f"{module}.{name}"


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The words of every `libra-edge` line in a block of commands."""
    text = re.sub(r" *\\\n *", " ", page.read_text("utf-8"))
    for block in re.findall(r"^ *```(?:sh)?\n(.*?)^ *```", text, re.M | re.DOTALL):
        for line in block.splitlines():
            if line.strip().startswith("libra-edge "):
                yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_a_page_shows_have_their_flags(page: Path) -> None:
    for name, *words in shown_commands(page):
        if name.startswith("--"):
            continue
        command = app.load_command(name)
        inner = getattr(command, "commands", {})
        if inner:
            command = inner[words[0]]
        options = [p for p in command.params if p.param_type_name == "option"]
        known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
        used = {word for word in words if word.startswith("-")}
        assert used <= known | {"--help"}, (name, words)
        needed = [option.opts for option in options if option.required]
        assert all(used & set(flags) for flags in needed), (name, words, needed)


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    for page in (ROOT / "docs/decisions").glob("[0-9]*.md"):
        assert f"({page.name})" in index
