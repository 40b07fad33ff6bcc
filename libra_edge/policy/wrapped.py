"""Weights saved from inside a wrapper: `torch.compile`, data parallelism, a moving average."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from libra_edge.errors import InputError

# What `torch.compile` puts between the names of a module and of its parts.
_COMPILED = "_orig_mod."
# A wrapper keeps a few numbers of its own beside the weights: AveragedModel's `n_averaged`, a step.
_OWN_NUMBERS = 16


def unwrapped(
    path: Path, found: Mapping[str, torch.Tensor], needed: Collection[str]
) -> tuple[dict[str, torch.Tensor], str | None]:
    """The weights by the policy's own names, and what was done to find them.

    Names are taken from under a prefix where one alone is followed by every needed name; the
    wrapper's own few numbers are left behind. Where nothing fits, everything is given back as it
    is, for the usual errors.

    Args:
        path: of the checkpoint, for errors.
        found: tensors by the names in the file.
        needed: the policy's names.

    Returns:
        Tensors by name, and one sentence; None where the names were the policy's own.

    Raises:
        InputError: several sets of weights fit and differ.
    """
    plain = {name.replace(_COMPILED, ""): name for name in found}
    if len(plain) < len(found):
        raise _ambiguous(path, ["", _COMPILED])
    sets = [prefix for prefix in _prefixes(plain, needed) if _whole(prefix, plain, needed)]
    differing = [
        prefix
        for prefix in sets[1:]
        if not all(_same(found[plain[prefix + n]], found[plain[sets[0] + n]]) for n in needed)
    ]
    if differing:
        raise _ambiguous(path, [sets[0], *differing])
    if not sets:
        return dict(found), None
    prefix = sets[0]
    used = {plain[p + name] for p in sets for name in needed}
    left = [name for name in found if name not in used]
    if prefix == "" and used == set(needed) and len(sets) == 1:
        return dict(found), None
    taken = {name: found[plain[prefix + name]] for name in needed}
    extra = {n: found[n] for n in left if found[n].numel() > 1 or len(left) > _OWN_NUMBERS}
    words = f"{path}: the weights were taken from under {_shown(prefix, plain, needed)}"
    alone = f"; {', '.join(sorted(left))} is the wrapper's own and was left" if left else ""
    return taken | extra, words + alone + "."


def _prefixes(plain: Collection[str], needed: Collection[str]) -> list[str]:
    """What may stand before every needed name, shortest first."""
    anchor = max(needed, key=len)
    found = {name.removesuffix(anchor) for name in plain if name.endswith(anchor)}
    return sorted((p for p in found if p == "" or p.endswith(".")), key=lambda p: (len(p), p))


def _whole(prefix: str, plain: Collection[str], needed: Collection[str]) -> bool:
    return all(prefix + name in plain for name in needed)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _shown(prefix: str, plain: Mapping[str, str], needed: Collection[str]) -> str:
    compiled = any(plain[prefix + name] != prefix + name for name in needed)
    parts = [repr(prefix)] * bool(prefix) + [repr(_COMPILED)] * compiled
    return " and ".join(parts) or "more than one name"


def _ambiguous(path: Path, prefixes: list[str]) -> InputError:
    shown = ", ".join(repr(prefix) if prefix else "no prefix" for prefix in prefixes)
    return InputError(
        "checkpoint-ambiguous",
        f"{path} holds {len(prefixes)} different sets of the policy's weights: {shown}.",
        "Save the one to compile on its own; the moving average (EMA) is usually the better one.",
    )
