"""The page as browsers show it, and what its figures say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from libra_edge.bundle.engine_facts import Layer
from libra_edge.bundle.layer_table import block, layer_blocks, precision_shares
from libra_edge.report import figures, plots
from libra_edge.report.bounded_latencies import bounded_latencies
from libra_edge.report.page import html
from libra_edge.report.report import json_schema, markdown
from libra_edge.report.sensitivities import read_sensitivities
from tests.report.browser import CHROMIUM, Browser, browser
from tests.report.records import manifest, record

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "docs/reference/report.schema.json"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
WIDTHS = {"desktop": 1280, "phone": 390}
# Elements whose content is wider than they are and that do not scroll by themselves.
SPILLING = """
[...document.querySelectorAll("body *")].filter(e => !e.closest("svg") &&
  e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline" &&
  getComputedStyle(e).overflowX === "visible" && !e.closest(".wide")).map(e => e.outerHTML)
"""

# Words of one plot that lie on each other by more than the margins of their letters.
OVERLAPPING = """
[...document.querySelectorAll("svg")].flatMap(svg => {
  const words = [...svg.querySelectorAll("text")].map(
    t => [t.textContent, t.getBoundingClientRect()]);
  return words.flatMap(([a, r], i) => words.slice(i + 1).filter(([b, s]) =>
    Math.min(r.right, s.right) - Math.max(r.left, s.left) > 1 &&
    Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 4).map(([b, s]) => a + " | " + b));
})
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(record()), encoding="utf-8")
    return path


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_page_fits_loads_nothing_and_stays_silent(
    shown: Browser, page: Path, width: int, dark: bool
) -> None:
    shown.open(page, width=width, dark=dark)
    assert shown.value("innerWidth") == width
    assert shown.value("document.documentElement.scrollWidth <= innerWidth")
    assert shown.value(SPILLING) == []
    requested = shown.told("Network.requestWillBeSent")
    assert [each["request"]["url"] for each in requested] == [page.resolve().as_uri()]
    noise = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert shown.told(*noise) == []


@needs_chromium
def test_nothing_is_cut_off_on_paper(shown: Browser, page: Path) -> None:
    # A4 less its margins.
    shown.open(page, width=688, media="print")
    assert shown.value("document.documentElement.scrollWidth <= innerWidth")
    widths = shown.value("[...document.querySelectorAll('.wide')].map(e => e.scrollWidth)")
    assert len(widths) >= 8
    assert max(widths) <= 688


@needs_chromium
def test_page_forbids_what_it_does_not_need(shown: Browser, page: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.html"
    extra = "<img src='http://127.0.0.1:9/x.png'><script>document.title = 'taken'</script></body>"
    hostile.write_text(page.read_text("utf-8").replace("</body>", extra), encoding="utf-8")
    shown.open(hostile, width=390)
    assert shown.value("document.title") != "taken"
    failed = [each.get("blockedReason") for each in shown.told("Network.loadingFailed")]
    assert failed == ["csp"]


@needs_chromium
def test_browser_test_sees_what_it_is_for(shown: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta name=viewport content='width=device-width'><p style='width:900px'>wide</p>"
        "<svg><text y=20>one</text><text x=2 y=20>two</text></svg>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>"
    )
    shown.open(bad, width=390)
    assert shown.value("document.documentElement.scrollWidth > 390")
    assert len(shown.told("Network.requestWillBeSent")) == 2
    assert shown.told("Runtime.consoleAPICalled")
    assert shown.value(OVERLAPPING) == ["one | two"]


@needs_chromium
def test_dark_mode_is_dark_and_print_is_not(shown: Browser, page: Path) -> None:
    def brightness(**how: object) -> tuple[float, float]:
        shown.open(page, width=1280, **how)
        colors = [
            shown.value(f"getComputedStyle(document.querySelector({where!r})).{what}")
            for where, what in (("body", "backgroundColor"), ("svg text", "fill"))
        ]
        return tuple(np.mean([int(n) for n in re.findall(r"\d+", c)[:3]]) for c in colors)

    light, dark = brightness(), brightness(dark=True)
    assert light[0] > 240 > 128 > light[1]
    assert dark[0] < 40 < 128 < dark[1]
    assert brightness(dark=True, media="print")[0] > 240


@needs_chromium
def test_words_of_plots_are_legible_on_a_phone(shown: Browser, page: Path) -> None:
    shown.open(page, width=390)
    heights = shown.value(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 50
    assert min(heights) > 10
    assert shown.value(OVERLAPPING) == []


@needs_chromium
def test_wide_tables_scroll_in_their_own_box(shown: Browser, page: Path) -> None:
    shown.open(page, width=390)
    wider = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth)"
    assert shown.value(f"{wider}.length") >= 2
    assert shown.value(f"{wider}.every(e => e.tabIndex === 0 && e.ariaLabel)")


def test_every_section_is_there_manifest_last() -> None:
    text = html(record())
    heads = re.findall("<h2>(.*?)</h2>", text)
    assert heads == [
        "Checks",
        "Planner, end to end",
        "Refiner, end to end",
        "Smoothness on recorded episodes",
        "Closed loop, the same episodes under both",
        "Speed",
        "What every layer runs in",
        "Sensitivity",
        "Size",
        "Decisions",
        "Members",
        "Tools",
        "Manifest",
    ]
    assert text.index("<strong>fail</strong>") < text.index("<h2>Checks")
    assert "tokens equal, fail: 0.98, gate 0.999" in text


def test_what_was_loosened_or_left_out_stands_on_top() -> None:
    body = record().manifest
    body["gates"] = [{"name": "action", "limit": 0.5, "default": 0.02, "loose": True}]
    report = record(manifest=body)
    assert report.loose == [
        "compiled: action 0.5, the recipe's is 0.02 (LOOSE)",
        "verified: tokens 0.9, the recipe's is 0.98 (LOOSE)",
    ]
    top, _, _ = html(record()).partition("<h2>Checks")
    assert '<b class="fail">Loosened gate</b>, verified: tokens 0.9' in top
    assert "Quick" in top
    assert "Not asked for: latency" in top
    kept = record(gates=(report.gates[0].model_copy(update={"loose": False}),), quick=False)
    assert "Loosened" not in html(kept)
    assert "Quick" not in html(kept)


def test_markdown_holds_what_a_reviewer_decides_by() -> None:
    text = markdown(record())
    for part in (
        "### libra-edge verify: FAIL",
        "Quick: fewer checks",
        "**Loosened gate**, verified: tokens 0.9, the recipe's is 0.98 (LOOSE).",
        "| C ABI vs policy, end to end | tokens equal | 0.98 | 0.999 | 30 | **fail** |",
        "after each denoising step, in shares of range: 0.011, 0.0033, 0.00044.",
        "| faucet-open | 18 | 2 | 0 | 1 |",
        "planner / 3 + refiner",
        "bound of the target 13 ms",
        "24 in int8, 12 in fp32, 12 in int4 weights, fp32 activations",
    ):
        assert part in text


def test_every_plot_says_in_words_what_it_shows() -> None:
    labels = re.findall('<svg role="img" aria-label="([^"]*)"', html(record()))
    assert len(labels) == 10
    assert all(re.search(r"\d", label) for label in labels)


def test_a_hundred_bins_still_make_a_page() -> None:
    assert "release&#39;s bin, 0 to 99" in html(record(bins=100))


def test_record_fits_the_shipped_schema() -> None:
    schema = json.loads(SHIPPED.read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    body = json.loads(record().to_json())
    validator.validate(body)
    assert schema == json_schema()
    assert schema["properties"]["schema_version"]["const"] == body["schema_version"]
    del body["checks"][0]["verdict"]
    assert not validator.is_valid(body)


def test_bounds_are_those_of_the_target() -> None:
    of, latencies = manifest(), record().latencies
    planner, refiner, average = bounded_latencies(of, latencies)
    assert planner.limit == "memory"
    assert planner.bound_ms == pytest.approx(1e3 * 2.001e9 / 204.8e9)
    assert refiner.measured_ms == pytest.approx(np.median(latencies[1].calls_ms))
    assert planner.measured_ms is not None
    assert average.measured_ms == pytest.approx(planner.measured_ms / 3 + refiner.measured_ms)
    unknown = bounded_latencies(manifest(target="cpu-x86_64"), ())
    assert {(row.bound_ms, row.measured_ms) for row in unknown} == {(None, None)}


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("planner.backbone.blocks.0.attention.query", "planner.backbone.blocks.0"),
        ("refiner.blocks.11.mlp.2", "refiner.blocks.11"),
        ("planner.backbone.images.stem.3", "planner.backbone.images"),
        ("refiner.state", "refiner"),
        ("context/_v_193", "context/_v_193"),
    ],
)
def test_layers_belong_to_blocks(layer: str, name: str) -> None:
    assert block(layer) == name


def test_layers_are_shown_by_block_and_summed_by_precision() -> None:
    layers = [
        Layer(name=f"refiner.blocks.{i}.mlp.0", kernel="Gemm", precision=p, weight_bytes=9, runs=2)
        for i, p in ((10, "int8"), (2, "fp32"), (2, "int8"))
    ]
    assert [name for name, _ in layer_blocks(layers)] == ["refiner.blocks.2", "refiner.blocks.10"]
    first, second = precision_shares(layers)
    assert (first.precision, first.layers, first.weight_bytes, first.moved_bytes) == (
        "int8",
        2,
        18,
        36,
    )
    assert (second.precision, second.moved_bytes) == ("fp32", 18)


def test_sensitivities_come_from_the_build_report_worst_first() -> None:
    effect = {"tokens": 0.99, "action": 0.02}
    rows = [{"layer": n, "gate_used": g, "effect": effect} for n, g in (("a", 0.1), ("b", 1.5))]
    found = read_sensitivities({"sensitivity": rows, "kept": [{"layer": "b"}]})
    assert [(one.layer, one.kept) for one in found] == [("b", True), ("a", False)]
    assert read_sensitivities(None) == read_sensitivities({"medians_ms": {}}) == ()
    assert "bound" in figures.sensitivity(found)
    assert "bound" not in figures.sensitivity(found[1:])


def test_plots_take_zeros_and_equal_values() -> None:
    assert "nan" not in plots.histogram([0.0] * 5, "ms", "zeros")
    assert "nan" not in plots.histogram([2.0] * 5, "ms", "alike")
    nothing = plots.Spread("x", 0.0, 0.0, 0.0, 0.0)
    assert "nan" not in plots.spreads([nothing], "%", "exact")
    assert "nan" not in plots.curves({"max": [0.0, 1e-3]}, "1", "from nothing")
    assert 'class="bar"' not in plots.bars([plots.Bar("x", 0.0, "0 %")], "none")


def test_histogram_holds_every_value() -> None:
    values = list(np.random.default_rng(0).gamma(2, 1, 500))
    counts = re.findall(r": (\d+)</title>", plots.histogram(values, "ms", "calls"))
    assert sum(map(int, counts)) == 500
