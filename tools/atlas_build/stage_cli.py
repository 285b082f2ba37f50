"""The command line of tools/stage."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from atlas_build.console import REPOSITORY, exit_status, path_argument
from atlas_build.pin import read_pin
from atlas_build.source import llama_source, sdist_source
from atlas_build.staging import stage

LLAMA_PIN = REPOSITORY / "cmake" / "llama-cpp.pin"
SUBMODULE = REPOSITORY / "llama.cpp"
PATCHES = REPOSITORY / "patches"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tools/stage and return its exit status."""
    parser = argparse.ArgumentParser(prog="stage", description="Stage pinned sources into the build tree.")
    commands = parser.add_subparsers(dest="command", required=True)
    llama = commands.add_parser("llama", help="llama.cpp with the patch series applied")
    llama.add_argument(
        "--source", type=path_argument, metavar="DIR", help="use this llama.cpp tree, unchecked"
    )
    series = llama.add_mutually_exclusive_group()
    series.add_argument(
        "--patches", type=path_argument, default=PATCHES, metavar="DIR", help="default: patches/"
    )
    series.add_argument("--no-patches", action="store_true", help="stage upstream's source as it is")
    sdist = commands.add_parser("sdist", help="one directory of a pinned source distribution")
    sdist.add_argument("--pin", type=path_argument, required=True, metavar="FILE")
    for command in (llama, sdist):
        command.add_argument("--dest", type=path_argument, required=True, metavar="DIR")
        command.add_argument(
            "--cache", type=path_argument, required=True, metavar="DIR", help="for downloads; may be shared"
        )
    options = parser.parse_args(arguments)
    return exit_status(lambda: _stage_llama(options) if options.command == "llama" else _stage_sdist(options))


def _stage_llama(options: argparse.Namespace) -> None:
    patches: Path | None = None if options.no_patches else options.patches
    stage(llama_source(read_pin(LLAMA_PIN), SUBMODULE, options.cache, options.source), options.dest, patches)


def _stage_sdist(options: argparse.Namespace) -> None:
    stage(sdist_source(read_pin(options.pin), options.cache), options.dest)
