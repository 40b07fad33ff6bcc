"""The conformance run once per library and contract, as long as tests run: it takes its time."""

from __future__ import annotations

from libra_edge.bundle.verify import Release
from libra_edge.verification.native import conformance
from libra_edge.verification.native.conformance import TIMEOUT_S, Found, run_scripts
from libra_edge.verification.native.probe import contract_of
from libra_edge.verification.native.releases import KEPT

_found: dict[str, Found] = {}


def remembered(release: Release, timeout_s: float = TIMEOUT_S) -> Found:
    """What `run_scripts` found for these very bytes."""
    digests = [release.manifest.members[name].sha256 for name in KEPT]
    key = f"{digests} {contract_of(release.manifest)}"
    if key not in _found:
        _found[key] = run_scripts(release, timeout_s)
    return _found[key]


def remember() -> None:
    """From now on, in this process."""
    conformance.run_scripts = remembered
