"""`make gpu-check`: what an NVIDIA GPU makes of our policies, with the parity of every figure.

    python benchmarks/gpu_check.py [--kit FOLDER [--export]] [--out FOLDER]
    python benchmarks/gpu_check.py --prepare FOLDER [--release RTX4090_RELEASE]

The second form exports on a machine with the compiler what a GPU machine without it needs. Writes
`gpu-check.md` and `gpu-check.json`. Exit code 0: all met; 1: something failed; 2: there is no GPU,
and nothing was written;
unusable arguments exit with 2 as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from baseline import ROOT
from gpu import cuda_provider
from gpu.facts import gpu_facts, host_facts, refusal
from gpu.kit import MANIFEST, prepare
from gpu.page import page
from gpu.policies import make_case
from gpu.rows import Plan, Row, measure
from gpu.torch_engines import PRECISIONS

NO_GPU = 2
# Of a policy: observations that parity is judged on, and how much of the time it gets.
SAMPLES = {"demo": 32, "wide": 8, "paper": 1}
SHARES = {"demo": 1.0, "wide": 0.4, "paper": 0.4}
CONDITIONS = (
    "batch 1; engines of a policy and precision take turns in one process; Python's garbage "
    "collector off while timing; p99.9 from 1000 calls on",
    "fp32 without TF32, in PyTorch and in the CUDA provider; cuDNN chooses by its heuristics in "
    "PyTorch; time steps of the naive loop lie on the GPU beforehand",
    "parity against `LibraVLA` in float32 on the CPU, on made-up observations; fp32 and fp16 are "
    "held to the gates of their recipes, bf16 to those of fp16",
    "verdicts in brackets count for nothing: there is no recipe for bf16, and random weights "
    "decide between almost equal tokens",
)


def main() -> int:
    """Measure, write the page, print it."""
    options = arguments()
    if options.prepare is not None:
        prepare(options.prepare, options.release)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no NVIDIA GPU that PyTorch can use: nothing was measured.", file=sys.stderr)
        return NO_GPU
    if options.export:
        prepare(options.kit, options.release)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    report, rows = check(options)
    failed = [r for r in rows if r.judged and not r.passed]
    if options.device != "cuda":
        print(page(report, rows, report["notes"]))
        print("Tried out on the CPU: no figure above is a GPU's, and nothing was written.")
        return NO_GPU
    for row in failed:
        print(f"failed: {row.precision} {row.name}, {row.situation}: {row.why or row.checks}")
    sys.stdout.flush()
    # Not through destructors: a provider that fails in one would end the process with its code.
    os._exit(1 if failed or not report["refusal"]["met"] else 0)


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kit", type=Path, help="what --prepare wrote: exported graphs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/measurements")
    parser.add_argument("--policies", default="demo,wide,paper")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--alone-s", type=float, default=60.0, help="per policy and precision")
    parser.add_argument("--beside-s", type=float, default=60.0, help="and setting of priorities")
    parser.add_argument("--power-s", type=float, default=3.0)
    parser.add_argument("--samples", type=int, help="fewer observations, to try this program out")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the page")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--prepare", type=Path, help="export what a GPU machine needs, and end")
    parser.add_argument("--release", type=Path, help="with --prepare: an rtx4090 release")
    parser.add_argument("--export", action="store_true", help="fill --kit here first")
    options = parser.parse_args()
    if options.export and options.kit is None:
        parser.error("--export needs --kit: the folder to fill")
    if options.kit is not None and not options.export and not (options.kit / "fp32").is_dir():
        parser.error(f"{options.kit} is no kit: make one with --prepare or --export")
    unknown = set(options.policies.split(",")) - SAMPLES.keys()
    unknown |= set(options.precisions.split(",")) - set(PRECISIONS)
    if unknown:
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    return options


def check(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    """Everything, written after every step, so that what is cut short leaves what it had."""
    kit, notes = options.kit, list(options.note)
    why = cuda_provider.unavailable() if options.device == "cuda" else ""
    if kit is None or why:
        notes.append(f"The CUDA provider's rows are left out: {why or 'no kit was given'}.")
    usable = None if why else kit
    facts = gpu_facts() if options.device == "cuda" else {}
    report: dict[str, Any] = {
        "facts": facts | host_facts() | provider_facts(usable),
        "refusal": refused(kit, facts),
        "policies": {},
        "conditions": CONDITIONS,
        "notes": notes,
    }
    rows: list[Row] = []
    for name in options.policies.split(","):
        case = make_case(name, options.samples or SAMPLES[name], options.device)
        sizes = " + ".join(f"{count / 1e6:.1f} M" for count in case.parameters)
        weights = "" if case.trained else ", random weights"
        report["policies"][name] = f"{name.capitalize()} policy, {sizes} parameters{weights}"
        for precision in options.precisions.split(","):
            begin, share = time.perf_counter(), SHARES[name]
            beside_s = options.beside_s * share if precision != "bf16" else 0.0
            power_s = options.power_s
            plan = Plan(options.device, options.alone_s * share, beside_s, power_s, usable)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            rows += measure(case, precision, plan)
            torch.set_num_threads(threads)
            report["facts"][f"memory_{name}_{precision}"] = memory(options.device)
            took = time.perf_counter() - begin
            print(f"{name} {precision}: {took:.0f} s", file=sys.stderr, flush=True)
            if options.device == "cuda":
                write(options.out, report, rows)
    return report, rows


def memory(device: str) -> str:
    """The most that PyTorch held since the last question, and what the whole process holds."""
    if device != "cuda":
        return "not read"
    most = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    free, total = torch.cuda.mem_get_info()
    return f"PyTorch at most {most:.0f} MiB, GPU in use afterwards {(total - free) / 2**20:.0f} MiB"


def provider_facts(kit: Path | None) -> dict[str, str]:
    """Which ONNX Runtime is measured."""
    if kit is None:
        return {}
    import onnxruntime as ort

    return {"onnxruntime": ort.__version__}


def refused(kit: Path | None, facts: dict[str, str]) -> dict[str, Any]:
    """Whether an rtx4090 release is refused in one sentence where it has to be."""
    if not facts:
        return {"met": True, "why": "", "words": "there is no GPU to refuse anything on."}
    given = kit is not None and (kit / MANIFEST).exists()
    found = refusal(kit / MANIFEST if kit is not None and given else None, facts)
    source = "a release's manifest" if given else "the target's profile"
    count, wanted = len(found["capability_sentences"]), found["needs_capability"]
    found["words"] = (
        f"{count} sentence about the compute capability (release {wanted}, "
        f"this GPU {facts['compute_capability']}), from {source}, before anything is loaded."
    )
    return found


def write(out: Path, report: dict[str, Any], rows: Sequence[Row]) -> None:
    """Both files."""
    out.mkdir(parents=True, exist_ok=True)
    head = json.dumps(report, indent=1).removesuffix("\n}")
    lines = ",\n".join(json.dumps(row.to_json()) for row in rows)
    text = f'{head},\n "rows": [\n{lines}\n]\n}}\n'
    (out / "gpu-check.json").write_text(text, encoding="utf-8")
    (out / "gpu-check.md").write_text(page(report, rows, report["notes"]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
