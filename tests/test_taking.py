"""What leaves with units, and what is left: looked up fast, and counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from secateur.structure.ledger import Total
from secateur.structure.taking import taken_by


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_classes_of_units_are_those_of_the_rows(seed: int, even: bool):
    generator = np.random.default_rng(seed)
    units, classes = generator.integers(1, 8), generator.integers(1, 12)
    dense = generator.random((units, classes)) < 0.4
    if even:
        dense = np.array([np.roll(dense[0], shift) for shift in range(units)])
    some = generator.permutation(units)[: generator.integers(0, units + 1)]
    found = taken_by(sparse.csr_matrix(dense))(some)
    assert sorted(set(found.tolist())) == np.flatnonzero(dense[some].any(0)).tolist()


@pytest.mark.parametrize("dense", [np.eye(3, dtype=bool), np.tri(3, dtype=bool)])
def test_a_unit_that_is_none_is_refused(dense: np.ndarray):
    with pytest.raises(IndexError):
        taken_by(sparse.csr_matrix(dense))(np.array([3]))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 10**9]))
def test_sums_of_products_are_exact_however_large(seed: int, scale: int):
    generator = np.random.default_rng(seed)
    dense = [*(generator.integers(1, 4000, size=5) * scale).tolist(), 1]
    terms = [
        (int(generator.integers(0, 1000)), tuple(generator.integers(0, 5, size=size).tolist()))
        for size in generator.integers(0, 4, size=6)
    ]
    total = Total.over(terms, np.array(dense))
    left = [int(generator.integers(0, count + 1)) for count in dense[:-1]] + [1]
    wanted = 0
    for constant, numbers in terms:
        value = constant
        for number in numbers:
            value *= left[number]
        wanted += value
    assert total.of(np.array(left)) == wanted
