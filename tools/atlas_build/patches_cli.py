"""The command line of tools/patches."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from atlas_build.console import REPOSITORY, BuildError, exit_status, path_argument
from atlas_build.drift import find_refusals
from atlas_build.patchcheck import lint, stats, verify
from atlas_build.patchfile import read_patches
from atlas_build.patchwork import PatchRepository
from atlas_build.pin import read_pin
from atlas_build.source import Source, llama_source
from atlas_build.stage_cli import LLAMA_PIN, PATCHES, SUBMODULE

_VERBS = {
    "apply": "make the work repository: upstream as one commit, then one commit for each patch",
    "export": "write the commits of the work repository back to patches/",
    "lint": "check headers, white space, the series and its size",
    "verify": "check that the series applies, exports unchanged, and keeps its guards",
    "stats": "show the size of each patch",
    "drift": "try the series on another llama.cpp tree and say which hunks it refuses",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tools/patches and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="patches", description="Edit and check the patch series of llama.cpp."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, help_text in _VERBS.items():
        verb = verbs.add_parser(name, help=help_text)
        verb.add_argument(
            "--patches", type=path_argument, default=PATCHES, metavar="DIR", help="default: patches/"
        )
        if name in {"apply", "export"}:
            work = REPOSITORY / "build" / "patch-work"
            verb.add_argument(
                "--work", type=path_argument, default=work, metavar="DIR", help="default: build/patch-work"
            )
        if name in {"apply", "verify"}:
            cache = REPOSITORY / "build-cache"
            verb.add_argument(
                "--source", type=path_argument, metavar="DIR", help="use this llama.cpp tree, unchecked"
            )
            verb.add_argument(
                "--cache", type=path_argument, default=cache, metavar="DIR", help="default: build-cache"
            )
        if name == "drift":
            verb.add_argument("tree", type=path_argument, metavar="DIR", help="a llama.cpp source tree")
        if name == "apply":
            verb.add_argument("--discard", action="store_true", help="discard work that is not exported")
    options = parser.parse_args(arguments)
    run = {
        "apply": _apply,
        "export": _export,
        "lint": _lint,
        "verify": _verify,
        "stats": _stats,
        "drift": _drift,
    }[options.verb]
    return exit_status(lambda: run(options))


def _apply(options: argparse.Namespace) -> None:
    series = read_patches(options.patches)
    title = str(options.source) if options.source else read_pin(LLAMA_PIN).commit
    repository = PatchRepository.create(options.work, _source(options), title, options.discard)
    repository.apply(series)
    print(f"{repository.path}: upstream {title} and {len(series)} patches, one commit each")


def _export(options: argparse.Namespace) -> None:
    changed = PatchRepository(options.work).save(options.patches)
    print("\n".join(f"changed {file}" for file in changed) or "no patch changed")


def _lint(options: argparse.Namespace) -> None:
    if problems := lint(options.patches):
        raise BuildError(f"{len(problems)} problems in {options.patches}:\n" + "\n".join(problems))


def _verify(options: argparse.Namespace) -> None:
    for note in verify(options.patches, _source(options)):
        print(f"note: {note}")
    print("the series applies, exports unchanged, and keeps its guards")


def _stats(options: argparse.Namespace) -> None:
    print(stats(options.patches))


def _drift(options: argparse.Namespace) -> None:
    tree: Path = options.tree
    llama_source(read_pin(LLAMA_PIN), SUBMODULE, options.patches, tree)  # refuses what is none
    series = read_patches(options.patches)
    total = sum(len(change.hunks) for patch in series for change in patch.changes)
    if refusals := find_refusals(series, tree):
        listed = "\n".join(map(str, refusals))
        raise BuildError(f"{len(refusals)} of {total} hunks do not apply to {tree}:\n{listed}")
    print(f"all {total} hunks apply to {tree}")


def _source(options: argparse.Namespace) -> Source:
    given: Path | None = options.source
    return llama_source(read_pin(LLAMA_PIN), SUBMODULE, options.cache, given)
