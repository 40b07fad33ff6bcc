"""Any value in any key of a folder's files: a policy or an `InputError`, never anything else."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libra_edge.errors import InputError
from libra_edge.policy.family import ReadOptions
from libra_edge.policy.imported import family_of, read_imported
from tests.policy.lerobot_cases import case, names

# `...` takes the key out.
VALUES = (None, "x", [], {}, -1, 0, 1, 1.5, True, 10**9, [1], ["a", "b"], [0, 0], [-1, 3], ...)
TRIES = 120
Place = tuple[str | int, ...]


def places(body: Any, at: Place = ()) -> Iterator[Place]:
    """Every key of a table and every index of a list, however deep."""
    if isinstance(body, dict):
        items: Any = body.items()
    else:
        items = enumerate(body) if isinstance(body, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def put(body: Any, at: Place, value: Any) -> None:
    for key in at[:-1]:
        body = body[key]
    if value is ...:
        del body[at[-1]]
    else:
        body[at[-1]] = value


@pytest.mark.parametrize("name", names())
def test_wrong_values_are_errors_of_the_user(name: str, tmp_path: Path) -> None:
    found = case(name)
    shop = shutil.copytree(found.folder.parent, tmp_path / "case")
    folder = shop / "pretrained_model"
    vlm = shop / "vlm_config" if found.options.vlm_config else None
    options = replace(found.options, vlm_config=vlm)
    files = [folder / "config.json", *folder.glob("policy_*.json"), *([vlm] if vlm else [])]
    files = [file / "config.json" if file.is_dir() else file for file in sorted(files)]
    tries = [
        (file, at, value)
        for file in files
        for at in places(json.loads(file.read_text()))
        for value in VALUES
    ]
    refused = 0
    for file, at, value in random.Random(0).sample(tries, TRIES):
        good = file.read_text()
        body = json.loads(good)
        put(body, at, value)
        file.write_text(json.dumps(body))
        try:
            family = family_of(folder)
            if family is not None:
                read_imported(family, folder, options)
        except InputError:
            refused += 1
        file.write_text(good)
    assert 20 < refused < TRIES


@pytest.mark.parametrize("option", ["tokenizer", "vlm_config"])
def test_an_option_that_a_family_does_not_take_is_refused(option: str, tmp_path: Path) -> None:
    found = case("act")
    family = family_of(found.folder)
    assert family is not None
    options = replace(ReadOptions(found.robot), **{option: tmp_path})
    with pytest.raises(InputError, match="'act'"):
        read_imported(family, found.folder, options)


def test_what_a_folder_only_names_is_part_of_the_policys_identity(tmp_path: Path) -> None:
    """Another rotation or another word in these files is another policy, for caches above all."""
    found = case("smolvla")
    family = family_of(found.folder)
    assert family is not None
    known = {read_imported(family, found.folder, found.options).sha256}
    vlm, words = found.options.vlm_config, found.options.tokenizer
    assert vlm is not None
    assert words is not None
    other_vlm = shutil.copytree(vlm, tmp_path / "vlm")
    body = json.loads((other_vlm / "config.json").read_text())
    body["text_config"]["rms_norm_eps"] = 3e-6
    (other_vlm / "config.json").write_text(json.dumps(body))
    other_words = tmp_path / "tokenizer.json"
    table = json.loads(words.read_text())
    vocabulary = table["model"]["vocab"]
    first, second = [w for w, n in vocabulary.items() if n in (40, 41)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    other_words.write_text(json.dumps(table))
    for options in (
        replace(found.options, vlm_config=other_vlm),
        replace(found.options, tokenizer=other_words),
    ):
        sha256 = read_imported(family, found.folder, options).sha256
        assert sha256 not in known
        known.add(sha256)
