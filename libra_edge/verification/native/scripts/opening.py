"""What `le_open` has to refuse, each with its own status, and what it must not do besides."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libra_edge.binding import abi
from libra_edge.bundle.manifest import canonical_json, parse_manifest
from libra_edge.bundle.members import MANIFEST
from libra_edge.errors import LibraError
from libra_edge.verification.native.driver import Native, Refused
from libra_edge.verification.native.pair import Desk, Differs
from libra_edge.verification.native.probe import PLANNER_APART, WIDE
from libra_edge.verification.native.scripts.manifests import broken_manifests

ORT, LIBRARY, TOKENIZER = "lib/libonnxruntime.so", "lib/liblibra_edge.so", "tokenizer.json"
Change = Callable[[Path], None]
Body = dict[str, Any]


def _status(desk: Desk, release: Path | None, **options: Any) -> tuple[int, int]:
    """What opening gives, and the flags of `le_info`."""
    subject = desk.subject
    path = {} if release is None else {"release_dir": os.fsencode(release)}
    try:
        native = Native(subject.library, subject.release, subject.contract, **path, **options)
    except Refused as refused:
        if not refused.text:
            raise Differs("le_open refuses without a sentence") from None
        return refused.status, 0
    info = abi.PolicyInfo()
    subject.library.le_info(native.handle, ctypes.byref(info))
    native.close()
    return abi.OK, info.flags


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Differs(f"le_open of {what}: status {found}, it should be {expected}")


@contextmanager
def _copy(desk: Desk) -> Iterator[Path]:
    """A copy of the probe release that costs nothing: hard links, to be replaced, not written."""
    out = desk.subject.release.with_name("changed")
    shutil.copytree(desk.subject.release, out, copy_function=os.link)
    try:
        yield out
    finally:
        shutil.rmtree(out)


def _replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _body(release: Path) -> Body:
    body: Body = json.loads((release / MANIFEST).read_bytes())
    return body


def _seal(release: Path, body: Body) -> None:
    """Write the manifest, with hashes of what lies there."""
    for name in body["members"]:
        data = (release / name).read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        body["members"][name] = {"sha256": sha256, "size_bytes": len(data)}
    _replace(release / MANIFEST, canonical_json(body))


def options(desk: Desk) -> None:
    """Fields of `le_open_options` out of their bounds, and the folder that is none."""
    release = desk.subject.release
    wrong: tuple[tuple[Body, int], ...] = (
        ({"struct_size": 8}, abi.INVALID_ARGUMENT),
        ({"struct_size": ctypes.sizeof(abi.OpenOptions) - 1}, abi.INVALID_ARGUMENT),
        ({"struct_size": 16_385}, abi.INVALID_ARGUMENT),
        ({"abi_version": 0}, abi.ABI_MISMATCH),
        ({"abi_version": abi.ABI_VERSION + 1}, abi.ABI_MISMATCH),
        ({"release_dir": None}, abi.INVALID_ARGUMENT),
        ({"threads": 0}, abi.INVALID_ARGUMENT),
        ({"threads": 257}, abi.INVALID_ARGUMENT),
        ({"flags": 4}, abi.INVALID_ARGUMENT),
        ({"flags": 2**31}, abi.INVALID_ARGUMENT),
        ({"reserved": (ctypes.c_uint64 * 1)(1)}, abi.INVALID_ARGUMENT),
        ({"max_observation_age_ns": 2**62 + 1}, abi.INVALID_ARGUMENT),
        ({"release_dir": os.fsencode(release / MANIFEST)}, abi.INVALID_ARGUMENT),
        ({"release_dir": os.fsencode(release / "nowhere")}, abi.INVALID_ARGUMENT),
        ({"release_dir": os.fsencode(release / "engines")}, abi.INTEGRITY),
    )
    for fields, status in wrong:
        _require(str(fields), _status(desk, None, **fields)[0], status)


def manifests(desk: Desk) -> None:
    """Manifests that are wrong in one place, and those that are not for this library."""
    with _copy(desk) as release:
        body = _body(release)
        for what, data in broken_manifests(body):
            try:
                parse_manifest(data)
            except LibraError:
                _replace(release / MANIFEST, data)
                if _status(desk, release)[0] == abi.OK:
                    raise Differs(f"le_open takes a manifest with {what}") from None
        for path, value, status in _OTHERS:
            _replace(release / MANIFEST, canonical_json(_with(body, path, value)))
            _require(f"{'.'.join(path)} {value}", _status(desk, release)[0], status)


# Right in themselves, but not for this library.
_OTHERS: tuple[tuple[tuple[str, ...], Any, int], ...] = (
    (("schema_version",), 2, abi.INCOMPATIBLE),
    (("runtime", "abi_version"), 2, abi.ABI_MISMATCH),
    (("runtime", "arch"), "riscv64-linux-gnu", abi.WRONG_ARCHITECTURE),
    (("runtime", "onnxruntime_version"), "1.0.0", abi.INCOMPATIBLE),
    (("engines", "planner", "provider"), "CUDAExecutionProvider", abi.NO_PROVIDER),
    (("engines", "refiner", "provider"), "CUDAExecutionProvider", abi.NO_PROVIDER),
    (("engines", "planner", "kind"), "other", abi.INCOMPATIBLE),
    (("engines", "refiner", "kind"), "other", abi.INCOMPATIBLE),
    (("engines", "planner", "outputs"), [], abi.MALFORMED),
)


def _with(body: Body, path: tuple[str, ...], value: Any) -> Body:
    changed: Body = json.loads(json.dumps(body))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def proofs(desk: Desk) -> None:
    """A failed verdict and random weights: refused, unless the flag for it allows it."""
    verdicts = {"pass": 0, "fail": abi.PARITY_FAILED, "not measured": abi.PARITY_NOT_MEASURED}
    both = abi.ALLOW_FAILED | abi.ALLOW_RANDOM_WEIGHTS
    for verdict, flag in verdicts.items():
        for random in (False, True):
            with _copy(desk) as release:
                body = _body(release)
                check = body["parity"]["checks"][0] | {"verdict": verdict}
                checks = [check | {"verdict": "pass"}, check, check | {"verdict": "pass"}]
                body["parity"] |= {"verdict": verdict, "checks": checks}
                body |= {"random_weights": True} if random else {}
                _replace(release / MANIFEST, canonical_json(body))
                needed = abi.ALLOW_FAILED * (verdict == "fail")
                needed |= abi.ALLOW_RANDOM_WEIGHTS * random
                told = flag | abi.RANDOM_WEIGHTS * random
                what = f"verdict {verdict}" + ", random weights" * random
                for allowed in {0, abi.ALLOW_FAILED, abi.ALLOW_RANDOM_WEIGHTS, both}:
                    if needed & ~allowed:
                        found = _status(desk, release, flags=allowed)
                        _require(f"{what}, flags {allowed}", found, (abi.UNPROVEN, 0))
                _require(f"{what}, allowed", _status(desk, release, flags=both), (abi.OK, told))


def _flip(name: str, place: int) -> Change:
    def change(release: Path) -> None:
        content = bytearray((release / name).read_bytes())
        content[place] ^= 1
        _replace(release / name, bytes(content))

    return change


def _unlink(name: str) -> Change:
    return lambda release: (release / name).unlink()


def _add(name: str) -> Change:
    return lambda release: _replace(release / name, b"x")


def _resize(name: str, more: int) -> Change:
    def change(release: Path) -> None:
        content = (release / name).read_bytes()
        _replace(release / name, content[: len(content) + min(more, 0)] + b"\0" * max(more, 0))

    return change


def _link(name: str) -> Change:
    def change(release: Path) -> None:
        aside = release.parent / "aside"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        target = aside / Path(name).name
        shutil.move(release / name, target)
        (release / name).symlink_to(target)

    return change


def members(desk: Desk) -> None:
    """Members that are others, missing, links, or more than the manifest names."""
    names = sorted(_body(desk.subject.release)["members"])
    changes: dict[str, Change] = {}
    for name in names:
        changes[f"{name} with another last bit"] = _flip(name, -1)
    for name in (*names[:2], TOKENIZER):
        changes[f"{name} with another first bit"] = _flip(name, 0)
        changes[f"{name} as a link"] = _link(name)
        changes[f"{name} missing"] = _unlink(name)
        changes[f"{name} a byte longer"] = _resize(name, 1)
        changes[f"{name} a byte shorter"] = _resize(name, -1)
    for name in ("more", ".hidden", "engines/more.onnx", "lib/.hidden", "golden/images.npy~"):
        changes[f"{name} besides"] = _add(name)
    changes["a folder besides"] = lambda release: (release / "more").mkdir()
    for name in (MANIFEST, "engines", LIBRARY, ORT):
        changes[f"{name} as a link"] = _link(name)
    for what, change in changes.items():
        with _copy(desk) as release:
            change(release)
            _require(what, _status(desk, release)[0], abi.INTEGRITY)


def _of_another_contract(name: str) -> Change:
    return lambda release: _replace(release / name, (release.parent / WIDE / name).read_bytes())


def contents(desk: Desk) -> None:
    """Members that are just as the manifest says, and are no engine, library or tokenizer."""
    planner, refiner = "engines/planner.onnx", "engines/refiner.onnx"

    def swap(release: Path) -> None:
        (release / planner).rename(release / "aside")
        (release / refiner).rename(release / planner)
        (release / "aside").rename(release / refiner)

    def cut(release: Path) -> None:
        content = (release / ORT).read_bytes()
        _replace(release / ORT, content[: len(content) // 2])

    wrong: dict[str, tuple[Change, int]] = {
        "engines in each other's place": (swap, abi.ENGINE),
        "a planner that is no graph": (lambda r: _replace(r / planner, b"no graph"), abi.ENGINE),
        **{
            f"{name} of other shapes": (_of_another_contract(name), abi.ENGINE)
            for name in (planner, refiner)
        },
        "weights in the working directory": (
            lambda r: _replace(r / planner, Path(PLANNER_APART).read_bytes()),
            abi.ENGINE,
        ),
        "a refiner that is no graph": (lambda r: _replace(r / refiner, b""), abi.ENGINE),
        "an ONNX Runtime cut in half": (cut, abi.ENGINE),
        "an ONNX Runtime that is text": (lambda r: _replace(r / ORT, b"text" * 99), abi.ENGINE),
        "a tokenizer that is none": (lambda r: _replace(r / TOKENIZER, b"{}"), abi.MALFORMED),
    }
    for what, (change, status) in wrong.items():
        with _copy(desk) as release:
            body = _body(release)
            change(release)
            _seal(release, body)
            _require(what, _status(desk, release)[0], status)
