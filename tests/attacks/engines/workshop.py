"""Makes releases around a fault, and verifies them."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.verify import verify_integrity
from libra_edge.catalog import load_recipe, load_target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.graphs.export import from_bytes, to_bytes
from libra_edge.compiler.graphs.fuse import Form
from libra_edge.compiler.graphs.make_graphs import Front, make_graphs
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.engines import engine
from libra_edge.engines.session import EnginePair
from libra_edge.parity.golden import golden_members
from libra_edge.parity.samples import choose_samples
from libra_edge.policy.checkpoint import load_checkpoint, save_checkpoint
from libra_edge.runtime import build
from libra_edge.runtime.build import SOURCE_ROOT, build_library
from libra_edge.verification.bisect import Culprit, release_culprits
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.result import Verification
from libra_edge.verification.verify import verify_release
from tests.attacks.engines.catalogue import FAULTS, Case
from tests.remembered_runs import remember
from tests.rewriting import rewrite
from tests.tiny import write_tiny_checkpoint


def other_weights(checkpoint: Path, out: Path) -> Path:
    """The same policy a little further trained, so to speak: every weight 5 % off."""
    loaded = load_checkpoint(checkpoint)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.policy.parameters():
            parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    words = (checkpoint / "tokenizer.json").read_text()
    save_checkpoint(out, loaded.policy, loaded.statistics, words)
    return out


class Workshop:
    """A good release, the graphs it was made of, and those of a policy with other weights.

    Args:
        folder: where to work.
        checkpoint: the policy; None makes a tiny one.
        data: dataset to take observations from; None makes them up.
        samples: observations per comparison.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Path | None = None,
        data: Path | None = None,
        samples: int = 12,
    ) -> None:
        remember()
        self.folder, self.cache = folder, folder / "cache"
        self.data, self.count = data, samples
        self.checkpoint = checkpoint or write_tiny_checkpoint(folder / "checkpoint")
        other = other_weights(self.checkpoint, folder / "other")
        self.release = self.compiled(folder / "release", seed=0)
        self.manifest = verify_integrity(self.release)
        self.graphs, self.others = (self._graphs(path) for path in (self.checkpoint, other))
        loaded = load_checkpoint(self.checkpoint)
        self.samples = choose_samples(
            loaded.config.embodiment, loaded.config, loaded.tokenizer, 8, 0, data
        )

    def compiled(self, out: Path, seed: int, form: Form = "loop") -> Path:
        """A good release, its golden vectors and gates from the samples of `seed`."""
        request = Request(
            self.checkpoint, out=out, cache=self.cache, data=self.data, form=form, seed=seed
        )
        return compile_checkpoint(request).path

    def _graphs(self, checkpoint: Path) -> Front:
        return make_graphs(
            load_checkpoint(checkpoint), StageCache(self.cache), lambda stage, note: None
        )

    def case(self, name: str) -> Case:
        models = [
            from_bytes(model)
            for front in (self.graphs, self.others)
            for model in (front.planner, front.refiners["loop"])
        ]
        random = np.random.default_rng(zlib.crc32(name.encode()))
        tokenizer = (self.release / "tokenizer.json").read_bytes()
        return Case(self.manifest, *models, random, members={"tokenizer.json": tokenizer})

    def faulty(self, name: str, out: Path) -> Path:
        """The release with one fault of the catalogue."""
        case = self.case(name)
        FAULTS[name](case)
        return self.make(case, out)

    def make(self, case: Case, out: Path) -> Path:
        """The release around a fault; whatever it says of itself agrees with the fault."""
        out.parent.mkdir(exist_ok=True)
        settings, recipe = load_target("cpu-x86_64").engines[0], load_recipe("fp32")
        kind = engine(settings.kind)
        built = [kind.build(to_bytes(model), settings, recipe) for model in case.both]
        sessions = [kind.load(b.content, b.provider, b.session_options) for b in built]
        files: dict[str, Path | bytes] = {
            name: self.release / name for name in self.manifest.members
        }
        files |= {
            "engines/planner.onnx": built[0].content,
            "engines/refiner.onnx": built[1].content,
        }
        files |= golden_members(EnginePair(*sessions), self.samples) | case.members
        if case.sources:
            files["lib/liblibra_edge.so"] = self.library(case.sources)
        fields = {name: getattr(self.manifest, name) for name in ReleaseFacts.model_fields}
        rewrite(out, ReleaseFacts(**(fields | case.facts)), files)
        return out

    def library(self, sources: dict[str, tuple[str, str]]) -> bytes:
        """The runtime with other text in its sources, by file below `src`.

        Always in the same folder, so that the compiler takes unchanged files from its cache.
        """
        root = self.folder / "runtime"
        if not root.exists():
            shutil.copytree(SOURCE_ROOT, root)
        before = {name: (root / "src" / name).read_text() for name in sources}
        for name, (right, wrong) in sources.items():
            assert before[name].count(right) == 1, f"{name}: {right}"
            (root / "src" / name).write_text(before[name].replace(right, wrong))
        try:
            # A fault may leave behind what is no longer used; that is no reason not to build it.
            with patch.object(build, "_COMMON", [*build._COMMON, "-Wno-error"]):
                return build_library(self.folder / "native", source_root=root).read_bytes()
        finally:
            for name, text in before.items():
                (root / "src" / name).write_text(text)

    def verify(self, release: Path, **options: object) -> Verification:
        settings = {
            "checkpoint": self.checkpoint,
            "cache": self.cache,
            "data": self.data,
            "samples": self.count,
        }
        return verify_release(VerifyRequest(release, **{**settings, **options}))

    def culprits(self, release: Path, out: Path) -> list[Culprit]:
        request = VerifyRequest(release, self.checkpoint, self.data, seed=0, cache=self.cache)
        return release_culprits(request, out)
