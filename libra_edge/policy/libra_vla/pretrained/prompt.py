"""The prompt and the tokenizer of a pretrained model, from its own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

from libra_edge.errors import InputError
from libra_edge.policy.libra_vla.pretrained.folder import CONFIG, read_json
from libra_edge.policy.tokenizer import read_plain

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
# The prompt around them has to be the same.
_PROBES = ("pick up the cup", "Open drawer 2, slowly!")
# What InternVL's processor puts around a picture, where the tokenizer names nothing else.
_AROUND = {"start_image_token": "<img>", "end_image_token": "</img>"}


def read_prompt(path: Path, cameras: int) -> dict[str, Any]:
    """The tokens around pictures and instruction, from the folder's chat template.

    One message of the user: a picture of every camera, then the instruction; then the beginning of
    the answer.

    Args:
        path: the folder.
        cameras: V.

    Returns:
        What `PromptConfig` holds.

    Raises:
        InputError: a file is missing, or the template does not put pictures and instruction so.
    """
    words, settings = read_plain(path / TOKENIZER), _settings(path)
    config = read_json(path / CONFIG)
    picture = config.get("image_token_id")
    token = words.id_to_token(picture) if isinstance(picture, int) else None
    if token is None:
        raise _wrong(path, f"its tokenizer has no token {picture!r} for pictures")
    found = [
        _pieces(path, words, settings, (token, config.get("model_type")), cameras, probe)
        for probe in _PROBES
    ]
    if found[0] != found[1]:
        raise _wrong(path, "the tokens of its prompt depend on the instruction")
    *before, (between, after) = found[0]
    return {"before": before, "between": between, "after": after, "pad": pad_of(path, words)}


def read_words(path: Path, length: int) -> str:
    """The folder's `tokenizer.json` for instructions alone: padded to T, nothing put around them.

    Raises:
        InputError: it is missing or cannot be read, or no token fills up.
    """
    words = read_plain(path / TOKENIZER)
    pad = pad_of(path, words)
    content = json.loads((path / TOKENIZER).read_text(encoding="utf-8"))
    content["truncation"] = content["post_processor"] = None
    content["padding"] = {
        "strategy": {"Fixed": length},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": pad,
        "pad_type_id": 0,
        "pad_token": words.id_to_token(pad),
    }
    return json.dumps(content, ensure_ascii=False)


def pad_of(path: Path, words: tokenizers.Tokenizer) -> int:
    """The token that fills up short instructions.

    Raises:
        InputError: there is none.
    """
    found = words.token_to_id(_text(_settings(path).get("pad_token")) or "")
    if found is None:
        raise InputError(
            "tokenizer-invalid",
            f"{path} does not say which token fills up short instructions.",
            f"Give {SETTINGS} a pad_token.",
        )
    return int(found)


def _pieces(
    path: Path,
    words: tokenizers.Tokenizer,
    settings: Mapping[str, Any],
    model: tuple[str, Any],
    cameras: int,
    probe: str,
) -> list[Any]:
    """Tokens before each picture, then those on both sides of the instruction."""
    picture, kind = model
    content = [{"type": "image"}] * cameras + [{"type": "text", "text": probe}]
    special = {n: _text(settings.get(n)) or "" for n in ("bos_token", "eos_token", "pad_token")}
    try:
        (text, *_), _ = render_jinja_template(
            [[{"role": "user", "content": content}]],
            chat_template=_template(path, settings),
            add_generation_prompt=True,
            **special,
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise _wrong(path, f"its chat template fails: {error}") from None
    if kind == "internvl":
        start, end = (_text(settings.get(name)) or usual for name, usual in _AROUND.items())
        text = text.replace(picture, f"{start}{picture}{end}")
    begun = bool(special["bos_token"]) and text.startswith(special["bos_token"])
    ids = words.encode(text, add_special_tokens=not begun).ids
    pieces = _split(ids, words.encode(picture, add_special_tokens=False).ids)
    if len(pieces) != cameras + 1:
        found = len(pieces) - 1
        raise _wrong(path, f"its chat template shows {found} pictures of {cameras} cameras")
    around = _split(pieces[-1], words.encode(probe, add_special_tokens=False).ids)
    if len(around) != 2:
        raise _wrong(path, "its chat template does not end with pictures, then the instruction")
    return [*pieces[:-1], tuple(around)]


def _split(ids: Sequence[int], mark: Sequence[int]) -> list[list[int]]:
    """What stands between the occurrences of a sequence."""
    pieces: list[list[int]] = [[]]
    at = 0
    while at < len(ids):
        if list(ids[at : at + len(mark)]) == list(mark):
            pieces.append([])
            at += len(mark)
        else:
            pieces[-1].append(ids[at])
            at += 1
    return pieces


def _template(path: Path, settings: Mapping[str, Any]) -> str:
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    if (path / "chat_template.json").is_file():
        found = read_json(path / "chat_template.json").get("chat_template")
    else:
        found = settings.get("chat_template")
    if not isinstance(found, str):
        raise _wrong(path, "it has no chat template")
    return found


def _settings(path: Path) -> dict[str, Any]:
    return read_json(path / SETTINGS) if (path / SETTINGS).is_file() else {}


def _text(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, Mapping) else token
    return token if isinstance(token, str) else None


def _wrong(path: Path, what: str) -> InputError:
    return InputError(
        "backbone-prompt",
        f"{path}: {what}.",
        "Name a folder with the model's own tokenizer and chat template.",
    )
