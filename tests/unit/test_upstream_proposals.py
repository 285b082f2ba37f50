"""patches/upstream/: what is written up for llama.cpp fits its source, and mends what the series mends."""

from functools import cache
from pathlib import Path

import pytest

from atlas_build.console import REPOSITORY
from atlas_build.drift import find_refusals
from atlas_build.patchcheck import PROPOSALS
from atlas_build.patchfile import Patch, decode, parse_patch, read_patches
from atlas_build.pin import read_pin
from atlas_build.source import llama_source
from atlas_build.stage_cli import LLAMA_PIN, PATCHES, SUBMODULE

FILES = sorted((PATCHES / PROPOSALS).glob("*.patch"))
# It calls headers of ours; the folder's README says so.
NOT_WRITTEN_UP = {"refuse-requests-that-would-end-the-process-or-hold-up-all-others"}


@cache
def pristine() -> Path:
    return llama_source(read_pin(LLAMA_PIN), SUBMODULE, REPOSITORY / "build-cache").path


@cache
def series() -> dict[str, Patch]:
    return {patch.name[len("0000-") : -len(".patch")]: patch for patch in read_patches(PATCHES)}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def proposal(request: pytest.FixtureRequest) -> Patch:
    file: Path = request.param
    return parse_patch(file.name, decode(file.read_bytes()))


def test_fits_the_pristine_source(proposal: Patch) -> None:
    assert find_refusals([proposal], pristine()) == []


def test_is_written_up(proposal: Patch) -> None:
    assert "How to see it: " in proposal.why
    assert (REPOSITORY / proposal.trailers["Shown-By"]).is_file()
    assert "atlas" not in proposal.diff.lower()


def test_touches_what_the_series_touches(proposal: Patch) -> None:
    patch = series()[proposal.trailers["Series"]]
    if patch.kind == "mend":
        assert {change.path for change in proposal.changes} <= {change.path for change in patch.changes}
        refusals = find_refusals([proposal, patch], pristine())
        assert {refusal.patch for refusal in refusals} == {patch.name}, (
            "upstream having it, the patch has to go"
        )


def test_every_mend_is_written_up() -> None:
    written = {parse_patch(file.name, decode(file.read_bytes())).trailers["Series"] for file in FILES}
    mends = {name for name, patch in series().items() if patch.kind == "mend"}
    assert mends - written == NOT_WRITTEN_UP
