"""The training loop. Every draw depends on (seed, step), so a resumed run is the same run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from libra_edge.atomic import new_file, writing
from libra_edge.errors import InputError, LibraError
from libra_edge.policy.checkpoint import Statistics, save_checkpoint
from libra_edge.policy.libra_vla.model import LibraVLA
from libra_edge.training.config import TrainingConfig
from libra_edge.training.frames import FrameStore
from libra_edge.training.losses import Curriculum, Diffusion, coarse_loss, mixed_intents
from libra_edge.training.pretrained import freeze, pretrained_parts
from libra_edge.training.windows import Batch, Windows, random_shift

RESUME = "training_state.pt"
LOG = "training_log.jsonl"
Scalars = dict[str, float]


def pick_device() -> tuple[torch.device, str]:
    """The device to train on, and why."""
    if torch.cuda.is_available():
        return torch.device("cuda"), f"CUDA: {torch.cuda.get_device_name()}"
    return torch.device("cpu"), "no CUDA device"


@contextmanager
def _events_fail_here() -> Iterator[None]:
    """TensorBoard's thread hands an error of the disk to its caller: no traceback besides."""
    usual = threading.excepthook

    def hook(found: threading.ExceptHookArgs) -> None:
        if not issubclass(found.exc_type, OSError):
            usual(found)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


def _described(config: str) -> dict[str, Any]:
    """A configuration as it was saved: what came later was off before it."""
    off = {"observation_age_steps": 0, "plan_offsets": False}
    return {"real_time": off, **json.loads(config)}


def _groups(policy: LibraVLA, config: TrainingConfig) -> list[dict[str, Any]]:
    """The weights that are trained, with the peak of their learning rate."""
    elsewhere = {id(p) for part in pretrained_parts(policy) for p in part.parameters()}
    trained = [p for p in policy.parameters() if p.requires_grad]
    rates = ((False, config.learning_rate), (True, config.learning_rate * config.pretrained_rate))
    groups = [
        {"params": [p for p in trained if (id(p) in elsewhere) is there], "lr": rate}
        for there, rate in rates
    ]
    return [group for group in groups if group["params"]]


class Trainer:
    """Trains a policy on windows and keeps `out` resumable.

    Args:
        policy: the untrained policy.
        windows: the training samples.
        config: how to train.
        out: the run's folder: checkpoint, resume state, JSON-lines log, TensorBoard events.
        statistics, tokenizer_json: stored in the checkpoint.
    """

    def __init__(
        self,
        policy: LibraVLA,
        windows: Windows,
        config: TrainingConfig,
        out: Path,
        statistics: Statistics,
        tokenizer_json: str,
    ) -> None:
        self._config, self._windows, self._out = config, windows, out
        self._statistics, self._tokenizer_json = statistics, tokenizer_json
        self.device, self.device_reason = pick_device()
        freeze(policy, config)
        # Convolutions are faster with channels last.
        self._policy = policy.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = AveragedModel(
            self._policy, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)
        )
        groups = _groups(self._policy, config)
        self._optimizer = torch.optim.AdamW(
            groups, config.learning_rate, weight_decay=config.weight_decay
        )
        self._rate = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            [group["lr"] for group in groups],
            total_steps=config.steps + 1,
            pct_start=config.warmup_share,
        )
        self._curriculum = Curriculum(config.curriculum)
        self._diffusion = Diffusion(policy.config.schedule, self.device)
        self.step = 0

    def resume(self) -> None:
        """Go on where the run in `out` stopped.

        Raises:
            InputError: there is nothing to resume, or it belongs to another configuration.
        """
        path = self._out / RESUME
        if not path.exists():
            raise InputError("nothing-to-resume", f"{path} does not exist.", "Drop --resume.")
        saved = torch.load(path, weights_only=True, map_location=self.device)
        if _described(saved["config"]) != _described(self._config.model_dump_json()):
            raise InputError(
                "resume-mismatch",
                f"{path} belongs to another training configuration.",
                "Give the recipe that the run started with, or another --out.",
            )
        if saved["policy"].keys() != self._policy.state_dict().keys():
            raise InputError(
                "resume-mismatch",
                f"{path} belongs to a policy with other layers.",
                "Give the recipe, --backbone and --eyes that the run started with.",
            )
        self._policy.load_state_dict(saved["policy"])
        self._average.load_state_dict(saved["average"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._rate.load_state_dict(saved["rate"])
        self._curriculum.accuracy = saved["accuracy"]
        self._curriculum.passed_at = saved["passed_at"]
        self.step = saved["step"]

    def run(self, on_step: Callable[[int, Scalars], None] = lambda step, scalars: None) -> None:
        """Train to the last step; saves on the way and at the end.

        Raises:
            LibraError: the disk is full; what was saved before is whole.
            InputError: `out` may not be written to.
        """
        from torch.utils.tensorboard import SummaryWriter

        with writing(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with (
            writing(self._out),
            _events_fail_here(),
            SummaryWriter(str(self._out / "events")) as events,
            (self._out / LOG).open("a", encoding="utf-8") as log,
        ):
            while self.step < self._config.steps:
                scalars = self._train_step()
                self.step += 1
                on_step(self.step, scalars)
                if self.step % self._config.log_every == 0 or self.step == self._config.steps:
                    for name, value in scalars.items():
                        events.add_scalar(name, value, self.step)
                    elapsed_s = round(time.monotonic() - started, 1)
                    row = {"step": self.step, "elapsed_s": elapsed_s, **scalars}
                    log.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
                    log.flush()
                if self.step % self._config.save_every == 0 or self.step == self._config.steps:
                    self.save()
        if isinstance(self._windows.frames, FrameStore):
            self._windows.frames.discard()

    def save(self) -> None:
        """Write the averaged weights as a checkpoint, and the state that `resume` reads."""
        averaged: Any = self._average.module
        save_checkpoint(self._out, averaged, self._statistics, self._tokenizer_json)
        state = {
            "config": self._config.model_dump_json(),
            "step": self.step,
            "policy": self._policy.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rate": self._rate.state_dict(),
            "accuracy": self._curriculum.accuracy,
            "passed_at": self._curriculum.passed_at,
        }
        with new_file(self._out / RESUME) as stream:
            torch.save(state, stream)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _attention(self) -> AbstractContextManager[Any]:
        # PyTorch's fused CPU attention is several times slower backwards in bfloat16.
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def _train_step(self) -> Scalars:
        config = self._config
        random = np.random.default_rng([config.seed, self.step])
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        batch = self._windows.batch(config.batch, random)
        with self._autocast(), self._attention():
            coarse, accuracy, refine = self._losses(batch, random, generator)
        loss = config.coarse_weight * coarse + config.refine_weight * refine
        if not torch.isfinite(loss):
            raise LibraError(
                "training-diverged",
                f"The loss is not finite at step {self.step}.",
                "Lower learning_rate; the last saved checkpoint is unharmed.",
            )
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._policy.parameters(), config.gradient_clip)
        rate = float(self._rate.get_last_lr()[0])
        self._optimizer.step()
        self._rate.step()
        self._average.update_parameters(self._policy)
        own_share = self._curriculum.own_share(self.step)
        self._curriculum.observe(self.step, float(accuracy))
        return {
            "loss/coarse": float(coarse.detach()),
            "loss/refine": float(refine.detach()),
            "planner/token_accuracy": float(accuracy),
            "curriculum/own_share": own_share,
            "optimizer/learning_rate": rate,
            "optimizer/gradient_norm": float(norm),
        }

    def _losses(
        self, batch: Batch, random: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        config, policy, device = self._config, self._policy, self.device

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(array).to(device)

        images = tensor(random_shift(batch.images, config.random_shift_px, random))
        tokens, mask = tensor(batch.tokens), tensor(batch.mask)
        logits = policy.planner(images, tensor(batch.instructions), tensor(batch.states))
        coarse, accuracy = coarse_loss(logits, tokens, mask)
        if policy.refiner is None:
            return coarse, accuracy, torch.zeros((), device=device)
        intents = mixed_intents(logits, tokens, self._curriculum.own_share(self.step), generator)
        steps = tensor(batch.offset)[:, None] + torch.arange(policy.config.chunk, device=device)
        intent = intents[torch.arange(len(intents), device=device)[:, None], steps]
        late_images = tensor(random_shift(batch.late_images, config.random_shift_px, random))
        memory = policy.refiner.encode(late_images, tensor(batch.late_states))
        refine = self._diffusion.loss(
            policy.refiner,
            policy.refiner.context(memory, intent),
            tensor(batch.late_actions),
            tensor(batch.late_mask),
            config.noise_draws,
            generator,
        )
        return coarse, accuracy, refine
