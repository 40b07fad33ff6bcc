"""`libra-edge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from libra_edge.atomic import new_file
from libra_edge.bundle.diff import read_build_report
from libra_edge.bundle.signature import Signer
from libra_edge.data.extras import needs_extra
from libra_edge.errors import ExitCode, InputError
from libra_edge.evaluation.non_inferiority import ClosedLoop
from libra_edge.report.ci_pipelines import write_pipelines
from libra_edge.report.junit import junit_xml
from libra_edge.report.page import html
from libra_edge.report.report import Report, make_report, markdown
from libra_edge.verification.isolation.child import TIME_LIMIT_S, call_apart
from libra_edge.verification.request import (
    DEFAULT_SAMPLES,
    DEFAULT_SEED,
    QUICK_SAMPLES,
    Request,
)
from libra_edge.verification.result import Verification
from libra_edge.verification.verify import verify_release
from libra_edge.workers.where import Workers

from ._dataset import Strict, doubts_shown
from ._options import AllowLoose, GatesFile, Jobs, Json, Ray, Robot, TokenizerFile, VlmConfig
from ._parity import gate_changes, parity_table
from ._render import Output, say
from ._signature import finish_signature, require_signed, show_signer, signer_of
from ._trajectory import trajectory_table

BISECT_LIMIT_S = 3600.0


def _init_ci(folder: Path | None) -> None:
    if folder is not None:
        written = [str(path) for path in write_pipelines(folder)]
        Output("verify").finish({"written": written}, f"wrote {' and '.join(written)}")
        raise typer.Exit


def verify(
    release: Annotated[
        Path,
        typer.Argument(
            help="Release directory or .libra file.", metavar="RELEASE", show_default=False
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="What it was compiled from.", show_default="not measured")
    ] = None,
    robot: Robot = None,
    tokenizer: TokenizerFile = None,
    vlm_config: VlmConfig = None,
    reference_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="Interpreter with LeRobot: its answers are compared with first.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="LeRobot dataset to take observations from.",
            show_default="made-up observations",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Observations.",
            show_default=f"{DEFAULT_SAMPLES}; {QUICK_SAMPLES} with --quick",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the observations.")] = DEFAULT_SEED,
    golden_only: Annotated[
        bool, typer.Option("--golden-only", help="Bytes and golden vectors alone.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="What needs no compiling; not a release gate.")
    ] = False,
    gates: GatesFile = None,
    allow_loose: AllowLoose = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="What a quantised release was calibrated on, to compile its stages again.",
            show_default=False,
        ),
    ] = None,
    simulate: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Also run N episodes per task with checkpoint and release, and compare.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    simulator: Annotated[str, typer.Option(help="Where to run them.")] = "metaworld",
    jobs: Jobs = None,
    ray: Ray = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of stage outputs.", show_default="the user's cache")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write JUnit XML.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write report.html, report.json and report.md.",
            show_default=False,
        ),
    ] = None,
    expect_recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Fail unless it is of this recipe.", show_default=False),
    ] = None,
    expect_target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Fail unless it is for this target.", show_default=False),
    ] = None,
    expect_checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256",
            help="Fail unless it was compiled from this checkpoint; 8 digits are enough.",
            show_default=False,
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MS",
            help="Fail if a chunk and its share of a plan take longer, in the median.",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="For each answer of the release's code; then it failed."
        ),
    ] = TIME_LIMIT_S,
    bisect: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="On failure find the first wrong operator; writes a repro there.",
            show_default=False,
        ),
    ] = None,
    signature_only: Annotated[
        bool, typer.Option("--signature-only", help="Every byte and who signed it, no more.")
    ] = False,
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Whose signatures to take.", show_default="signature not checked"
        ),
    ] = None,
    init_ci: Annotated[
        Path | None,
        typer.Option(
            callback=_init_ci,
            is_eager=True,
            metavar="FOLDER",
            help="Write example pipelines for GitHub and GitLab there, and leave.",
            show_default=False,
        ),
    ] = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Check that a release is still the same policy.

    With --simulate, an interrupted run goes on where it was: finished episodes are kept.

    With --trust the signature is checked first, and nothing else of a release that is not let in.

    Exit codes: 0 everything that was asked for passed; 3 a check failed; 5 a byte is not as the
    manifest says; 7 a comparison could not be made (say so with --golden-only if only bytes and
    golden vectors are wanted).
    """
    if quick and golden_only:
        raise InputError(
            "usage", "--quick asks for more than --golden-only.", "Leave out one of the two."
        )
    output = Output("verify", json)
    if signature_only and trust is None:
        raise InputError(
            "usage", "--signature-only needs to know whom to trust.", "Give --trust FILE."
        )
    found = None if trust is None else signer_of(release, trust)
    if signature_only and found is not None:
        finish_signature(output, release, *found)
        return
    signed, signer = found or (None, None)
    workers = Workers.asked(jobs, ray, by="--simulate" if simulate is None else "")
    request = Request(
        release,
        checkpoint,
        data,
        samples=samples,
        seed=seed,
        golden_only=golden_only,
        quick=quick,
        gates=gates,
        allow_loose=allow_loose,
        calibrate=calibrate,
        closed_loop=ClosedLoop(simulator, simulate, 0, workers) if simulate else None,
        cache=cache,
        expect_recipe=expect_recipe,
        expect_target=expect_target,
        expect_checkpoint=expect_checkpoint,
        max_latency_ms=max_latency_ms,
        time_limit_s=time_limit,
        robot=robot,
        tokenizer=tokenizer,
        vlm_config=vlm_config,
        reference_python=reference_python,
    )
    with doubts_shown(strict=strict) as doubts:
        result = verify_release(request, on_stage=lambda stage: say(f"verify: {stage}"))
    require_signed(result.manifest, signed)
    if junit is not None:
        with new_file(junit) as stream:
            suite = f"libra-edge verify {result.manifest.name}"
            stream.write(junit_xml(suite, result.checks, result.left_out))
    if report is not None:
        build = read_build_report(release, result.manifest)
        facts = make_report(result, samples=result.samples, seed=seed, data=data, build=build)
        _write_report(report, facts)
    parity_table(output, result.checks)
    if result.behind.trajectory is not None:
        trajectory_table(output, result.behind.trajectory)
    gate_changes(output, result.manifest.gates, "when compiled")
    gate_changes(output, result.gates, "here")
    _show_limits(output, result)
    for what in result.left_out:
        output.text(f"not compared{' (--quick)' if quick else ''}: {what}")
    show_signer(output, release, signer)
    if report is not None:
        output.text(f"report: {report / 'report.html'}")
    culprits: list[str] = []
    if bisect is not None and result.count("fail"):
        culprits = _bisect(request, bisect)
    for culprit in culprits:
        output.text(f"first wrong: {culprit}")
    _finish(output, release, result, culprits, doubts, signer)


def _show_limits(output: Output, result: Verification) -> None:
    """What the verdict does not say: whose limits, how much so few observations can see."""
    if result.judged_by and result.judged_by != result.manifest.recipe:
        output.warn(f"judged as {result.judged_by}: that is what the graphs show")
    if result.power:
        output.text(result.power)
    if result.unchecked:
        output.text(f"claimed, not checked: {'; '.join(result.unchecked)}")


def _bisect(request: Request, out: Path) -> list[str]:
    """The first wrong operator of each graph; they run in a process of their own."""
    with needs_extra("compile", "Bisecting"):
        import onnx  # noqa: F401
    say("verify: bisecting both graphs")
    paths = ("release", "checkpoint", "data", "calibrate", "cache")
    told = {name: getattr(request, name) for name in paths}
    args = {name: None if path is None else str(path) for name, path in told.items()}
    found = call_apart(
        "libra_edge.verification.bisect:culprits_in_words",
        {**args, "seed": request.seed, "out": str(out)},
        time_limit_s=BISECT_LIMIT_S,
        memory_bytes=None,
    )
    return [str(words) for words in found["culprits"]]


def _write_report(folder: Path, record: Report) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    forms = {
        "report.json": record.to_json(),
        "report.md": markdown(record).encode(),
        "report.html": html(record).encode(),
    }
    for name, content in forms.items():
        with new_file(folder / name) as stream:
            stream.write(content)


def _finish(
    output: Output,
    release: Path,
    result: Verification,
    culprits: list[str],
    doubts: list[dict[str, Any]],
    signer: Signer | None,
) -> None:
    passed, failed, missing = (result.count(v) for v in ("pass", "fail", "not measured"))
    loose = [change.name for change in result.gates if change.loose]
    again = ("verify", release, "--checkpoint", "CHECKPOINT")
    follow = {
        ExitCode.OK: again if result.quick else ("simulate", release),
        ExitCode.NOT_MEASURED: again,
    }
    output.finish(
        {
            "path": str(release),
            "release_id": result.manifest.release_id,
            "signed_by": None if signer is None else signer.key_id,
            "checks": [check.to_json() for check in result.checks],
            "passed": passed,
            "failed": failed,
            "not_measured": missing,
            "first_wrong": culprits,
            "quick": result.quick,
            "left_out": list(result.left_out),
            "unchecked": list(result.unchecked),
            "judged_by": result.judged_by,
            "power": result.power,
            "gates": [change.model_dump(mode="json") for change in result.gates],
            "gates_when_compiled": [
                change.model_dump(mode="json") for change in result.manifest.gates
            ],
            "samples": result.samples,
            "dataset_doubts": doubts,
            "seed": result.seed,
            "behind": result.behind.to_json(),
        },
        f"{release}: {passed} checks passed, {failed} failed, {missing} not measured"
        + (" (quick: not a release gate)" if result.quick else "")
        + (f" (LOOSE GATES: {', '.join(loose)})" if loose else ""),
        exit_code=result.exit_code,
        next_command=follow.get(result.exit_code),
    )
