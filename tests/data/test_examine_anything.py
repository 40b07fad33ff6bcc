"""Whatever stands in a dataset's files, the examination ends with findings, never with a bug."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from libra_edge.data.examine import Expectation, examine
from tests.data.generated import Recipe, index_file, tables, write

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[1, 2], [3]]),
)
ANYTHING = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "set", Recipe(lengths=(5, 6)))


def copied(pristine: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead to it."""
    inner: Any = content.items() if isinstance(content, dict) else ()
    if isinstance(content, list):
        inner = enumerate(content)
    return [at] * bool(at) + [p for key, value in inner for p in places(value, (*at, key))]


@pytest.mark.parametrize("name", ["meta/info.json", "meta/libra_edge.json", "meta/stats.json"])
@ANYTHING
@given(number=st.integers(0, 10**6), value=VALUES, drop=st.booleans())
def test_any_value_in_a_json_file(
    pristine: Path, tmp_path: Path, name: str, number: int, value: Any, drop: bool
) -> None:
    path = copied(pristine, tmp_path)
    content = json.loads((path / name).read_text())
    *way, last = sorted(places(content), key=str)[number % len(places(content))]
    owner = content
    for key in way:
        owner = owner[key]
    if drop:
        del owner[last]
    else:
        owner[last] = value
    (path / name).write_text(json.dumps(content))
    for finding in examine(path, Expectation(needs_robot=True)).findings:
        assert finding.fact
        assert finding.remedy


@pytest.mark.parametrize("which", ["rows", "index", "tasks"])
@ANYTHING
@given(number=st.integers(0, 10**6), kind=st.integers(0, 5))
def test_any_kind_of_column_in_a_table(
    pristine: Path, tmp_path: Path, which: str, number: int, kind: int
) -> None:
    path = copied(pristine, tmp_path)
    files = {
        "rows": tables(path)[0],
        "index": index_file(path),
        "tasks": path / "meta/tasks.parquet",
    }
    table = pq.ParquetFile(files[which]).read()
    at = number % table.num_columns
    count, name = table.num_rows, table.column_names[at]
    column = [
        lambda: pa.array([None] * count, table.schema.field(at).type),
        lambda: pa.array(["x"] * count),
        lambda: pa.array([-1] * count),
        lambda: pa.array(np.full(count, np.nan)),
        lambda: pa.array([[1.0] * (1 + i % 2) for i in range(count)]),
        lambda: pa.array([10**12] * count),
    ][kind]()
    pq.write_table(table.set_column(at, name, column), files[which])
    for finding in examine(path, Expectation(needs_robot=True)).findings:
        assert finding.fact
        assert finding.remedy


@ANYTHING
@given(number=st.integers(0, 10**6), at=st.floats(0, 1), seed=st.integers(0, 1000))
def test_any_damage_to_any_file(
    pristine: Path, tmp_path: Path, number: int, at: float, seed: int
) -> None:
    path = copied(pristine, tmp_path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = files[number % len(files)]
    content = bytearray(file.read_bytes())
    start = int(at * max(len(content) - 16, 0))
    content[start : start + 16] = np.random.default_rng(seed).bytes(16)
    file.write_bytes(content)
    examine(path, Expectation(needs_robot=True))
