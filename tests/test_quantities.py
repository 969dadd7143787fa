"""Quantities: what people may write, what is refused and with which words, and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.quantities import (
    Quantity,
    format_bytes,
    format_count,
    format_seconds,
    parse_quantity,
)

KINDS = ("flops", "params", "latency", "bytes", "drop")
UNIT_OF = {"flops": "count", "params": "count", "latency": "seconds", "bytes": "bytes"}


@pytest.mark.parametrize(
    ("text", "kind", "value", "unit"),
    [
        ("0.5x", "flops", 0.5, "fraction"),
        ("50%", "latency", 0.5, "fraction"),
        ("1x", "bytes", 1.0, "fraction"),
        (0.25, "params", 0.25, "fraction"),
        (1, "flops", 1.0, "fraction"),
        ("0.3", "latency", 0.3, "fraction"),
        ("12ms", "latency", 0.012, "seconds"),
        ("0.3s", "latency", 0.3, "seconds"),
        ("250us", "latency", 0.00025, "seconds"),
        ("250µs", "latency", 0.00025, "seconds"),
        ("20MB", "bytes", 20e6, "bytes"),
        ("3KiB", "bytes", 3072.0, "bytes"),
        (" 3 kib ", "bytes", 3072.0, "bytes"),
        ("512", "bytes", 512.0, "bytes"),
        ("1.2G", "flops", 1.2e9, "count"),
        ("300M", "params", 300e6, "count"),
        ("7B", "params", 7e9, "count"),
        ("5k", "params", 5000.0, "count"),
        (1_000_000, "params", 1e6, "count"),
        ("1e6", "flops", 1e6, "count"),
        ("1pt", "drop", 0.01, "points"),
        ("1%", "drop", 0.01, "points"),
        ("0.01", "drop", 0.01, "points"),
        (0.5, "drop", 0.5, "points"),
        (0, "drop", 0.0, "points"),
    ],
)
def test_reads_what_people_write(text, kind, value, unit):
    assert parse_quantity(text, kind) == Quantity(value, unit)


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("12MB", "latency", "a fraction of dense (0.5x, 50%) or a time (250us, 12ms, 0.3s)"),
        ("12", "latency", "a fraction of dense (0.5x, 50%) or a time (250us, 12ms, 0.3s)"),
        ("12ms", "bytes", "a fraction of dense (0.5x, 50%) or a size (3KiB, 20MB)"),
        ("12ms", "flops", "a fraction of dense (0.5x, 50%) or a count (5k, 300M, 1.2G)"),
        ("20MB", "params", "a fraction of dense (0.5x, 50%) or a count (5k, 300M, 1.2G)"),
        ("0.5x", "drop", "points (1pt, 1%, or 0.01)"),
        ("half", "flops", "a count"),
        ("", "flops", "a count"),
        ("1,5M", "flops", "a count"),
        ("nan", "drop", "points"),
        ("inf", "bytes", "a size"),
        ("1e400", "bytes", "a size"),
        (True, "flops", "a count"),
    ],
)
def test_refuses_other_units_and_says_what_it_wants(text, kind, wanted):
    with pytest.raises(InputError) as caught:
        parse_quantity(text, kind)
    message = str(caught.value)
    assert message.startswith(f"{kind} wants ")
    assert wanted in message
    assert message.endswith(f"got {str(text)!r}")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("2x", "latency", "latency: a fraction of dense lies above 0 and at most at 1x (100%)"),
        ("120%", "flops", "at most at 1x"),
        (0, "flops", "above 0"),
        ("-5M", "params", "params wants a number above 0, got '-5M'"),
        ("0ms", "latency", "latency wants a number above 0, got '0ms'"),
        ("1e308T", "flops", "flops wants a number above 0, got '1e308T'"),
        (1, "drop", 'one point is "1pt", "1%" or 0.01'),
        ("-1pt", "drop", "drop wants at least 0 and less than 100 points, got '-1pt'"),
    ],
)
def test_refuses_values_out_of_range(text, kind, message):
    with pytest.raises(InputError) as caught:
        parse_quantity(text, kind)
    assert message in str(caught.value)


positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
above_one = st.floats(min_value=1, exclude_min=True, allow_nan=False, allow_infinity=False)
fractions = st.floats(min_value=0, max_value=1, exclude_min=True)


@given(kind=st.sampled_from(["flops", "params", "latency", "bytes"]), value=fractions)
def test_fractions_read_back_as_written(kind, value):
    quantity = Quantity(value, "fraction")
    assert parse_quantity(str(quantity), kind) == quantity


@given(kind=st.sampled_from(["latency", "bytes"]), value=positive)
def test_times_and_sizes_read_back_as_written(kind, value):
    quantity = Quantity(value, UNIT_OF[kind])
    assert parse_quantity(str(quantity), kind) == quantity


@given(kind=st.sampled_from(["flops", "params"]), value=above_one)
def test_counts_read_back_as_written(kind, value):
    quantity = Quantity(value, UNIT_OF[kind])
    assert parse_quantity(str(quantity), kind) == quantity


@given(value=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_drops_read_back_as_written(value):
    quantity = Quantity(value, "points")
    assert parse_quantity(str(quantity), "drop") == quantity


@given(kind=st.sampled_from(KINDS), text=st.text(max_size=12))
def test_any_text_is_read_or_refused_with_an_input_error(kind, text):
    try:
        quantity = parse_quantity(text, kind)
    except InputError as error:
        assert repr(text) in str(error)
    else:
        assert parse_quantity(quantity, kind) is quantity


def test_a_quantity_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"bytes wants .*, got '12ms'"):
        parse_quantity(Quantity(0.012, "seconds"), "bytes")
    with pytest.raises(InputError, match=r"drop wants .*, got '0.5x'"):
        parse_quantity(Quantity(0.5, "fraction"), "drop")


def test_resolve_scales_fractions_and_keeps_the_rest():
    assert parse_quantity("25%", "flops").resolve(1000) == 250
    assert parse_quantity("5k", "flops").resolve(1e9) == 5000
    assert parse_quantity("1%", "drop").resolve(0.9) == 0.01


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (432, "432"),
        (999, "999"),
        (1000, "1.00k"),
        (999_960, "1.00M"),
        (11_689_512, "11.7M"),
        (1_814_073_344, "1.81G"),
        (-3_200_000, "-3.20M"),
        (0.5, "0.500"),
    ],
)
def test_counts_for_people(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (12, "12 B"), (46_800_000, "46.8 MB"), (3072, "3.07 kB")]
)
def test_sizes_for_people(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0123, "12.3 ms"), (0.9999, "1.00 s"), (2.5e-4, "250 us"), (90, "90.0 s")],
)
def test_times_for_people(seconds, text):
    assert format_seconds(seconds) == text


@given(value=st.floats(min_value=1, max_value=9e14))
def test_three_digits_are_within_half_a_percent(value):
    read = parse_quantity(format_count(value), "flops")
    assert abs(read.value - value) <= 0.005 * value
