"""Information abundance against NumPy's singular values, its bounds and its invariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import information_abundance, set_abundances

Draw = np.random.Generator


def by_svd(table: np.ndarray) -> float:
    """The definition, by NumPy's SVD in float64."""
    values = np.linalg.svd(np.asarray(table, np.float64), compute_uv=False)
    return float(values.sum() / values[0])


def rotation(draw: Draw, width: int) -> np.ndarray:
    return np.linalg.qr(draw.normal(size=(width, width)))[0]


def spread(draw: Draw, rows: int, values: np.ndarray) -> np.ndarray:
    """Rows whose columns have these sizes in a rotated frame."""
    return (draw.normal(size=(rows, len(values))) * values) @ rotation(draw, len(values))


def cases() -> dict[str, Callable[[Draw], np.ndarray]]:
    width = np.arange(48)
    return {
        "one row": lambda d: d.normal(size=(1, 7)),
        "one column": lambda d: d.normal(size=(9, 1)),
        "one number": lambda d: np.array([[-3.0]]),
        "fewer rows than columns": lambda d: d.normal(size=(5, 12)),
        "square": lambda d: d.normal(size=(20, 20)),
        "several products": lambda d: d.normal(size=(20_000, 6)),
        "float32": lambda d: d.normal(size=(300, 16)).astype(np.float32),
        "integers": lambda d: d.integers(-3, 4, (50, 4)),
        "rank 3, exactly": lambda d: d.integers(-3, 4, (400, 3)) @ d.integers(-3, 4, (3, 48)),
        "rank 2 in float32": lambda d: (d.normal(size=(2000, 2)) @ d.normal(size=(2, 64))).astype(
            np.float32
        ),
        "equal rows": lambda d: np.tile(d.normal(size=(1, 30)), (500, 1)),
        "columns of zeros": lambda d: np.pad(d.normal(size=(60, 3)), ((0, 0), (2, 5))),
        "rows of zeros": lambda d: np.pad(d.normal(size=(20, 3)), ((15, 9), (0, 0))),
        "falling by a third": lambda d: spread(d, 600, 3.0**-width),
        "falling by a tenth": lambda d: spread(d, 600, 10.0**-width),
        "a cliff to 1e-7": lambda d: spread(d, 600, np.where(width < 20, 1.0, 1e-7)),
        "a cliff to 1e-3 and to 1e-5": lambda d: spread(
            d, 600, np.select([width < 2, width < 30], [1.0, 1e-3], 1e-5)
        ),
        "tiny": lambda d: 1e-200 * d.normal(size=(40, 5)),
        "huge": lambda d: 1e200 * d.normal(size=(40, 5)),
        "growing from block to block": lambda d: np.concatenate(
            [10.0**k * d.normal(size=(9000, 2)) for k in (-9, 0, 3)]
        ),
    }


@pytest.mark.parametrize("name", cases())
def test_it_is_numpys_svd(name: str) -> None:
    table = cases()[name](np.random.default_rng(5))
    assert information_abundance(table) == pytest.approx(by_svd(table), rel=0, abs=1e-9)


def test_the_gram_matrix_alone_would_not_do() -> None:
    """What the second reading is for: a collapsed table, whose small values are roots of noise."""
    table = spread(np.random.default_rng(1), 400, 10.0 ** -np.arange(100.0))
    squares = np.linalg.eigvalsh(table.T @ table)
    roots = np.sqrt(np.maximum(squares, 0.0))
    assert abs(roots.sum() / roots.max() - by_svd(table)) > 2e-8
    assert information_abundance(table) == pytest.approx(by_svd(table), rel=0, abs=1e-9)


def test_known_values() -> None:
    assert information_abundance(np.eye(4)) == 4.0
    assert information_abundance(np.diag([4.0, 2.0, 1.0])) == pytest.approx(1.75, rel=1e-14)
    assert information_abundance(np.outer([1.0, -2.0, 3.0], [1.0, 1.0])) == 1.0
    assert information_abundance([[3.0, 4.0]]) == 1.0


def test_a_table_without_a_direction_has_none() -> None:
    for shape in ((0, 3), (1, 3), (9000, 3)):
        assert information_abundance(np.zeros(shape)) is None


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.zeros((4, 0)), r"shape \(4, 0\)"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([[1.0, np.nan]]), "nan in a table of width 2"),
        (np.array([[1.0], [-np.inf]]), "inf in a table of width 1"),
    ],
)
def test_what_is_no_table_is_refused(table: np.ndarray, told: str) -> None:
    with pytest.raises(UserError, match=told):
        information_abundance(table)


tables = st.builds(
    lambda seed, rows, width, fall, rank: (
        (d := np.random.default_rng(seed)).normal(size=(rows, min(rank, width)))
        * 10.0 ** (-fall * np.arange(min(rank, width)))
        @ d.normal(size=(min(rank, width), width))
    ),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 20),
    st.floats(0.0, 2.0),
    st.integers(1, 20),
)


@given(tables)
def test_it_lies_between_one_and_the_smaller_side(table: np.ndarray) -> None:
    found = information_abundance(table)
    assert found is not None and 1.0 <= found <= min(table.shape)
    assert found == pytest.approx(by_svd(table), rel=0, abs=1e-9)


@given(tables, st.floats(1e-30, 1e30), st.booleans(), st.integers(0, 10**6))
def test_scale_rotation_and_order_of_rows_do_not_matter(
    table: np.ndarray, factor: float, negative: bool, seed: int
) -> None:
    found = information_abundance(table)
    draw = np.random.default_rng(seed)
    for other in (
        (-factor if negative else factor) * table,
        table @ rotation(draw, table.shape[1]),
        table[draw.permutation(len(table))],
        np.concatenate([table, np.zeros((3, table.shape[1]))]),
    ):
        assert information_abundance(other) == pytest.approx(found, rel=0, abs=1e-9)
    assert information_abundance(2.0**-40 * table) == found  # a power of two changes no digit


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 6), st.integers(1, 60))
def test_sets_are_told_apart_in_one_reading(seed: int, sets: int, dim: int, rows: int) -> None:
    draw = np.random.default_rng(seed)
    falls = [10.0 ** (-draw.integers(0, 4) * np.arange(dim)) for _ in range(sets)]
    scales = 10.0 ** draw.integers(-6, 7, sets)
    parts = [s * spread(draw, rows, f) for s, f in zip(scales, falls, strict=True)]
    table = np.concatenate(parts, axis=1)
    cuts = np.unique(draw.integers(0, rows + 1, 3))
    read: list[int] = []

    def blocks() -> list[np.ndarray]:
        read.append(1)
        return np.split(table, cuts)

    per_set, joined = set_abundances(blocks, sets, dim)
    assert len(read) <= 3
    assert per_set == pytest.approx([by_svd(part) for part in parts], rel=0, abs=1e-9)
    assert joined == pytest.approx(by_svd(table), rel=0, abs=1e-9)
    if sets == 1:
        assert per_set == [joined]


def test_a_set_of_zeros_is_undefined_and_its_neighbour_is_not() -> None:
    table = np.concatenate([np.zeros((6, 3)), np.random.default_rng(0).normal(size=(6, 3))], axis=1)
    per_set, joined = set_abundances(lambda: [table], 2, 3)
    assert per_set == [None, pytest.approx(by_svd(table[:, 3:]), abs=1e-12)]
    assert joined == pytest.approx(per_set[1], abs=1e-12)


def test_a_healthy_table_is_read_once() -> None:
    table, read = np.random.default_rng(0).normal(size=(500, 8)), []

    def blocks() -> list[np.ndarray]:
        read.append(1)
        return [table]

    set_abundances(blocks, 2, 4)
    assert len(read) == 1
