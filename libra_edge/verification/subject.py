"""A release under test: what it is tested on, and its code, which runs in processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from libra_edge.binding.library import DEVICE_CODES
from libra_edge.bundle.compatibility import device_for, mismatches, needs_of
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.time_structure import contract_of
from libra_edge.bundle.verify import Release
from libra_edge.catalog import Recipe, load_recipe
from libra_edge.errors import (
    CrashedError,
    IncompatibleError,
    InputError,
    IntegrityError,
    LibraError,
)
from libra_edge.limits import Limits
from libra_edge.parity.samples import Sample, choose_samples, synthetic_samples
from libra_edge.policy.config import ActionDim, Embodiment
from libra_edge.policy.executor import Engines
from libra_edge.policy.time_structure import TimeStructure
from libra_edge.policy.tokenizer import Tokenizer
from libra_edge.verification.details.smoothness import Recording, read_recordings
from libra_edge.verification.isolation.child import crashed
from libra_edge.verification.isolation.remote import (
    RemoteEngines,
    RemoteRuntime,
    open_engines,
    open_runtime,
)
from libra_edge.verification.open_engines import elsewhere, engines_run_here, graphs_run_here
from libra_edge.verification.recompile import TOKENIZER, Trained
from libra_edge.verification.request import Request
from libra_edge.verification.result import Behind

if TYPE_CHECKING:
    from libra_edge.policy.imported import AnyCheckpoint
    from libra_edge.verification.claims.recipe import Shown

OnStage = Callable[[str], None]
# Made-up observations beside those of a dataset: more data never makes a gate weaker.
MADE_UP = 12


def can_read_graphs() -> bool:
    """Whether this machine has what reads graphs; a field laptop has not."""
    return find_spec("onnx") is not None and find_spec("torch") is not None


@dataclass
class Subject:
    """One release, its limits and its observations.

    shown: what its graphs are, None where nothing here reads them; samples: of the dataset where
    there is one, then made-up ones; made_up: those that are judged by themselves; behind,
    left_out, unchecked: collected by the examinations; unfit: why the device that it needs is not
    what this machine has, once that is known.
    """

    request: Request
    release: Release
    shown: Shown | None
    limits: Limits
    trained: Trained
    on_stage: OnStage
    samples: Sequence[Sample] = ()
    made_up: Sequence[Sample] = ()
    recordings: Sequence[Recording] | None = None
    behind: Behind = field(default_factory=Behind)
    left_out: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    unfit: str = ""
    _open: dict[str, RemoteEngines | CrashedError] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def manifest(self) -> Manifest:
        """What the release says of itself."""
        return self.release.manifest

    @property
    def truth(self) -> AnyCheckpoint | None:
        """The checkpoint, if it is the release's."""
        return self.trained.checkpoint

    @property
    def recipe(self) -> Recipe:
        """The recipe that it is judged by."""
        if self.shown is not None:
            return self.shown.best(self.manifest.recipe)
        return load_recipe(self.manifest.recipe)

    @property
    def body(self) -> Embodiment:
        """The robot: the checkpoint's word counts, what a release says of itself is under test."""
        return self.truth.config.embodiment if self.truth else self.manifest.embodiment

    @property
    def dims(self) -> Sequence[ActionDim]:
        """The action dimensions."""
        return self.body.actions

    @property
    def bins(self) -> int:
        """N."""
        return self.truth.config.bins if self.truth else self.manifest.policy.bins

    @property
    def contract(self) -> TimeStructure:
        """Sizes and time structure, by the checkpoint's word where it is there."""
        return self.truth.config if self.truth else contract_of(self.manifest)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The policy's words, where it has any."""
        if self.truth is not None:
            return self.truth.tokenizer
        length = self.manifest.policy.instruction_length
        if not length:
            return None
        return Tokenizer(self.release.member(TOKENIZER), length)

    @property
    def runs_here(self) -> bool:
        """Whether the release's own library runs on this machine."""
        if self.request.engines is not None:
            return True  # they were built here
        return not mismatches(needs_of(self.manifest), device_for(self.manifest))

    def runtime(self) -> RemoteRuntime | None:
        """The release through the C ABI; None where it does not run here.

        Raises:
            CrashedError: it took its process down, now or before.
        """
        if not self.runs_here:
            return None
        try:
            found = self._opened(
                "runtime", lambda s: open_runtime(self.release, s, self.request.engines)
            )
        except IncompatibleError as error:
            if error.code not in DEVICE_CODES:
                raise
            self.unfit = error.fact
            return None
        return found if isinstance(found, RemoteRuntime) else None

    def elsewhere(self) -> str:
        """Why the release does not run on this machine, in a sentence."""
        return self.unfit or elsewhere(self.release)

    def engines(self) -> RemoteEngines | None:
        """The release's engines; None where what runs them is not here."""
        if not engines_run_here(self.release):
            return None
        return self._opened("engines", lambda s: open_engines(self.release, s))

    def reference(self) -> Engines | None:
        """The checkpoint in the program that trained it; None where it was not asked for.

        Raises:
            InputError: the checkpoint is none of LeRobot's, or there is no such interpreter.
        """
        python, truth = self.request.reference_python, self.truth
        if python is None or truth is None:
            return None
        from libra_edge.policy.imported import Imported
        from libra_edge.verification.reference import LeRobotEngines

        if not isinstance(truth, Imported):
            raise InputError(
                "usage",
                "--reference-python is for policies that LeRobot trained; this checkpoint is not.",
                "Leave it out.",
            )
        return self._stack.enter_context(LeRobotEngines(python, truth, self.request.vlm_config))

    def graphs(self) -> RemoteEngines | None:
        """The plain graphs as written, on the CPU; None where there is nothing to run them with."""
        if not graphs_run_here(self.release):
            return None
        return self._opened("graphs", lambda s: open_engines(self.release, s, written=True))

    def _opened(self, name: str, opening: Callable[[float], RemoteEngines]) -> RemoteEngines:
        if name not in self._open:
            try:
                found = opening(self.request.time_limit_s)
                self._stack.callback(found.child.close)
                self._open[name] = found
            except CrashedError as error:
                self._open[name] = error
            except IntegrityError:
                raise
            except IncompatibleError as error:
                if error.code in DEVICE_CODES:
                    raise
                self._open[name] = crashed(f"it does not open: {error.fact}", "open")
            except LibraError as error:
                # It is for this machine, and its bytes are whole: then it is no release of ours.
                self._open[name] = crashed(f"it does not open: {error.fact}", "open")
        found_or_error = self._open[name]
        if isinstance(found_or_error, CrashedError):
            raise found_or_error
        return found_or_error

    def choose(self) -> None:
        """Choose observations; data that cannot be used is refused before anything is compiled."""
        request, tokenizer = self.request, self.tokenizer
        policy = self.contract
        count, seed, data = request.count, request.seed, request.data
        if request.samples is None and self.truth is not None and self._heavy(self.truth):
            # One call takes a second and more; the verdict says what so few can miss.
            count //= 4
        found = choose_samples(self.body, policy, tokenizer, count, seed, data)
        if data is not None:
            made_up = synthetic_samples(self.body, policy, tokenizer, MADE_UP, seed)
            # Where rounding is meant, its gates hold for what it was calibrated on.
            if rounds(self.limits):
                self.made_up = made_up
            else:
                found += made_up
            if self.truth is not None and tokenizer is not None and not request.quick:
                self.recordings = read_recordings(data, self.body, tokenizer, seed)
        self.samples = found

    @staticmethod
    def _heavy(truth: AnyCheckpoint) -> bool:
        from libra_edge.policy.imported import is_heavy

        return is_heavy(truth)

    def close(self) -> None:
        """End the release's processes."""
        self._stack.close()


def rounds(limits: Limits) -> bool:
    """Whether these are limits of a recipe that means to round: tokens bounded by a percentile."""
    return limits.margin_percentile is not None
