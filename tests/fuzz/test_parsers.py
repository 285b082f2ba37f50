"""The targets of `make fuzz` in Python, with the corpus and with what hypothesis makes of it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import TARGETS

CORPUS = Path(__file__).with_name("corpus")
BOUNDED = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str) -> None:
    for data in corpus(target):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@BOUNDED
@given(data=st.data())
def test_near_the_corpus(target: str, data: st.DataObject) -> None:
    """A part of one input, anything, and a part of another."""
    inputs = st.sampled_from(corpus(target))
    begin, end = data.draw(inputs), data.draw(inputs)
    cuts = data.draw(st.integers(0, len(begin))), data.draw(st.integers(0, len(end)))
    TARGETS[target](begin[: cuts[0]] + data.draw(st.binary(max_size=8)) + end[cuts[1] :])
