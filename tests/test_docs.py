"""README and docs say what the code does."""

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import facts
from atlas_plugin.testing import Application, FakeHost
from tests.server.harness import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PLUGINS = (REPOSITORY / "docs/plugins.md").read_text(encoding="utf-8")
EXAMPLE = (REPOSITORY / "examples/plugins/hello.py").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(p for place in ("deploy", "docs", "models", "tests") for p in (REPOSITORY / place).rglob("*.md")),
    ]
)
DECISIONS = sorted((REPOSITORY / "docs/adr").glob("*.md"))


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def written(default: Any) -> str:
    """A default as the README writes it: nothing for what is empty."""
    if isinstance(default, float):
        return f"{default:.12g}"
    return str(default).lower() if default not in ("", []) else ""


def test_settings_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(.+?)` \| `(\w+)` \| (?:`(.*?)` )?\| (?:(yes) )?\|",
        section(README, "Settings"),
        re.M,
    )
    expected = [
        (
            row["name"],
            row["flag"],
            row["env"],
            written(row["default"]),
            "yes" if row["reload"] == "live" else "",
        )
        for row in facts.SETTINGS
    ]
    assert rows == expected


def test_plugin_of_the_plugins_page_is_the_example() -> None:
    assert code_blocks(section(PLUGINS, "A first plugin"), "python") == [EXAMPLE]


def test_plugin_of_the_readme_is_the_example() -> None:
    (shown,) = code_blocks(section(README, "A first plugin"), "python")
    name, _, code = shown.partition("\n")
    assert name == "# examples/plugins/hello.py"
    assert EXAMPLE.endswith(f'"""\n\n{code}')


def test_routes_of_the_readme_exist() -> None:
    documented = set(re.findall(r"^\| `((?:GET|POST|DELETE) /\S+)` \|", section(README, "Routes"), re.M))
    application = Application(FakeHost())
    application.start()
    served = {f"{route.method} {route.path}" for route in application.plugins.router.routes}
    application.stop()
    assert documented == served | {f"POST {facts.ROUTE_FLUSH}"}


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    rows = (REPOSITORY / "docs/dependencies.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| ([\w-]+) \|", rows, re.M))
    assert {re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in declared} <= explained


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_decision_has_four_parts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    number = int(path.name.partition("-")[0])
    assert re.match(rf"# {number}\. \S.*\n\nStatus: (accepted|superseded), \d{{4}}-\d\d-\d\d", text)
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.M) == ["Context", "Decision", "Consequences"]


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name.partition("-")[0]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_document_names_no_place_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.>])/(?:home|root|tmp|work|Users|opt)/\S+", text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_files_that_texts_name_exist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = [Path(line) for line in listed.stdout.splitlines()]
    places = {path.parts[0] for path in files if len(path.parts) > 1} - {"llama.cpp"}
    # tools/server is upstream's
    path = re.compile(
        rf"(?<![\w./-])(?!tools/server/)(?:{'|'.join(places)})/[\w./-]*\w\.(?:py|[ch]|[ch]pp|def|md|toml|sh)\b"
    )
    own = re.compile(r"\batlas-[\w-]+\.(?:[ch]|[ch]pp|def)\b")
    known = {path.name for path in files} | {"atlas-build.h", "atlas-python-embedding.c"}
    kinds = {".md", ".py", ".h", ".hpp", ".c", ".cpp", ".patch"}
    missing = []
    for file in files:
        if file.suffix in kinds and "tests" not in file.parts and (REPOSITORY / file).is_file():
            text = (REPOSITORY / file).read_text(encoding="utf-8")
            missing += [(file, name) for name in path.findall(text) if not (REPOSITORY / name).exists()]
            missing += [(file, name) for name in own.findall(text) if name not in known]
    assert missing == []
