"""Reports of a real verification: complete, self-contained, and true to the record."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.parity.gates import Outputs
from libra_edge.parity.samples import Sample
from libra_edge.report import plots
from libra_edge.report.page import html
from libra_edge.report.report import Report, json_schema, make_report, markdown
from libra_edge.verification.details.differences import planner_detail, refiner_detail
from libra_edge.verification.request import Request as VerifyRequest
from libra_edge.verification.result import Verification
from libra_edge.verification.verify import verify_release
from tests.tiny import tiny_embodiment, write_tiny_checkpoint

DIMS = tiny_embodiment().actions


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_tiny_checkpoint(folder / "checkpoint")
    compile_checkpoint(
        Request(folder / "checkpoint", out=folder / "release", cache=folder / "cache")
    )
    return folder


@pytest.fixture(scope="module")
def result(work: Path) -> Verification:
    return verify_release(
        VerifyRequest(work / "release", work / "checkpoint", samples=10, cache=work / "cache")
    )


@pytest.fixture(scope="module")
def report(result: Verification) -> Report:
    return make_report(result, samples=10, seed=1, data=None)


def test_record_fits_its_schema_and_reads_back(report: Report) -> None:
    body = json.loads(report.to_json())
    jsonschema.Draft202012Validator(json_schema()).validate(body)
    assert Report.model_validate_json(report.to_json()) == report
    assert report.verdict == "pass"
    assert len(body["checks"]) == len(report.checks)


def test_latencies_and_details_are_there(report: Report) -> None:
    assert [x.name for x in report.latencies] == ["planner", "refiner"]
    assert all(0 < x.p50_ms <= x.p99_ms for x in report.latencies)
    assert report.planner is not None
    assert report.planner.agreement.value == 1.0
    assert sum(map(sum, report.planner.confusion)) == 10 * 6 * len(DIMS)
    assert report.refiner is not None
    assert report.refiner.compared == 10
    assert len(report.refiner.worst) == 5


def outputs(seed: int, count: int = 40) -> Outputs:
    random = np.random.default_rng(seed)
    intent = random.integers(0, 10, (count, 6, 3)).astype(np.int32)
    margin = random.random((count, 6, 3)).astype(np.float32)
    actions = random.uniform(0, 1, (count, 3, 3)).astype(np.float32)
    return Outputs(intent, margin, actions, intent[:, :3])


def changed(reference: Outputs, sample: int, dim: int, by: float) -> Outputs:
    actions = reference.actions.copy()
    actions[sample, 1, dim] += by
    return Outputs(reference.intent, reference.margin, actions, reference.used)


def some_samples(count: int = 40) -> list[Sample]:
    nothing = np.zeros((3, 3), np.float32)
    return [Sample(nothing, nothing, nothing, nothing, 0, f"episode {i}") for i in range(count)]


def test_worst_sample_is_named_with_its_dimension() -> None:
    reference = outputs(0)
    detail = refiner_detail(reference, changed(reference, 7, 1, 0.4), some_samples(), DIMS, 0)
    assert detail is not None
    worst = detail.worst[0]
    assert (worst.sample, worst.origin, worst.dimension) == (7, "episode 7", DIMS[1].name)
    assert worst.error == pytest.approx(0.4 / (DIMS[1].upper - DIMS[1].lower), rel=1e-5)
    assert detail.dimensions[1].max == pytest.approx(0.4, rel=1e-5)
    assert detail.dimensions[0].max == 0.0
    assert detail.snr_db_min < detail.snr_db_p50 == 200.0


def test_actions_are_compared_only_where_intents_are_alike() -> None:
    reference, other = outputs(0), outputs(1)
    assert refiner_detail(reference, other, some_samples(), DIMS, 0) is None


def test_tokens_weighted_by_margin() -> None:
    reference = outputs(0)
    intent = reference.intent.copy()
    sure = np.unravel_index(reference.margin.argmax(), reference.margin.shape)
    intent[sure] = (intent[sure] + 2) % 10
    candidate = Outputs(intent, reference.margin, reference.actions, intent[:, :3])
    detail = planner_detail(reference, candidate, 10, DIMS, 0)
    assert detail.weighted_agreement < detail.agreement.value < 1.0
    assert detail.agreement.low <= detail.agreement.value <= detail.agreement.high
    assert detail.differing_margins == (float(reference.margin.max()),)
    assert sum(detail.confusion[i][i] for i in range(10)) == intent.size - 1


class Page(HTMLParser):
    """What a page would load, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_is_one_file_and_says_what_the_record_says(report: Report) -> None:
    text = html(report)
    page = Page(text)
    assert page.loads == []
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import", text)
    words = " ".join(page.words)
    for check in report.checks:
        assert check.stage in words
    assert f"{report.count('pass')} checks passed" in words
    assert report.release_id[:16] in words


def test_page_without_details_still_renders(report: Report) -> None:
    bare = report.model_copy(update={"planner": None, "refiner": None, "latencies": ()})
    assert "Planner, end to end" not in html(bare)
    assert "###" in markdown(bare)


def test_page_escapes_what_others_wrote(report: Report) -> None:
    evil = report.checks[0].model_copy(update={"note": "<script>alert(1)</script>"})
    text = html(report.model_copy(update={"checks": (evil,)}))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    drawn = plots.bars([plots.Bar("<b>", 1.0, "&")], "<i>")
    assert "<b>" not in drawn
    assert "<i>" not in drawn


def test_markdown_has_a_row_for_every_check(report: Report) -> None:
    rows = [line for line in markdown(report).splitlines() if line.startswith("| ")]
    assert sum(check.stage in row for check in report.checks for row in rows) >= len(report.checks)


def test_command_writes_all_three(work: Path, tmp_path: Path) -> None:
    words = ["verify", str(work / "release"), "--golden-only", "--report", str(tmp_path / "r")]
    done = CliRunner().invoke(program.app, words)
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        "report.html",
        "report.json",
        "report.md",
    }
