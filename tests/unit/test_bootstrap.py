"""tools/bootstrap on machines made of stub executables. Nothing is downloaded or installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ".venv with spaces"

# What bootstrap itself and the stub below use; nothing else of this machine is on PATH.
SYSTEM_TOOLS = ("cat", "cp", "dirname", "ls", "mkdir", "sed")

# The probe comes from standard input and is run by the real interpreter, under conditions that a module
# sitecustomize sets. Any other start is written down; `-m venv` copies the stub into the environment.
PYTHON = """\
#!/bin/sh
here="{machine}"
if [ "$1" = - ]; then
    PYTHONPATH="$here/site" exec "{python}" "$@"
fi
echo "$*" >>"$here/journal"
[ ! -e "$here/broken" ] || exit 1
if [ "$2" = venv ]; then
    for environment; do :; done
    mkdir -p "$environment/bin"
    echo >"$environment/pyvenv.cfg"
    cp "$0" "$environment/bin/python"
fi
"""

IS_BASE = "import sys; sys._base_executable = {stub!r}\n"
NO_ENSUREPIP = "import sys; sys.modules['ensurepip'] = None"
NO_HEADER = "import sysconfig; sysconfig.get_path = lambda name: '/nonexistent'"
NO_LIBRARY = "import sysconfig; sysconfig.get_config_var = lambda name: None"
TOO_OLD = "import sys; sys.version_info = (3, 10, 2, 'final', 0)"


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "repository"
        self.bin = folder / "bin"
        self.site = folder / "site" / "sitecustomize.py"
        self.environment = self.root / ENVIRONMENT
        for directory in (self.root / "tools", self.bin, self.site.parent):
            directory.mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "bootstrap", self.root / "tools")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        shutil.copytree(ROOT / "requirements", self.root / "requirements")
        for tool in SYSTEM_TOOLS:
            path = shutil.which(tool)
            assert path, tool
            (self.bin / tool).symlink_to(path)
        for tool in ("git", "cc", "c++"):
            self.stub(tool, "#!/bin/sh\n")
        self.stub("python3", PYTHON.format(machine=folder, python=sys.executable))
        self.condition("")

    def stub(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def condition(self, code: str) -> None:
        """Runs code before the probe, for which the stub is the base interpreter unless it says otherwise."""
        self.site.write_text(IS_BASE.format(stub=str(self.bin / "python3")) + code)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "tools" / "bootstrap"), *arguments],
            env={"PATH": str(self.bin), **variables},
            capture_output=True,
            text=True,
        )

    def prepare(self, *arguments: str) -> list[str]:
        """Runs bootstrap, which must succeed, and returns what it started."""
        result = self.run("--venv", ENVIRONMENT, *arguments)
        assert result.returncode == 0, result.stderr
        return self.take_journal()

    def take_journal(self) -> list[str]:
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        journal.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_lacks(machine: Machine, packages: str, *texts: str, **variables: str) -> None:
    result = machine.run("--venv", ENVIRONMENT, **variables)
    assert result.returncode == 1
    apt_lines = [line.strip() for line in result.stderr.splitlines() if "apt-get" in line]
    assert apt_lines == [f"apt-get install {packages}"]
    for text in texts:
        assert text in result.stderr
    assert machine.take_journal() == []
    assert not machine.environment.exists()


def test_a_complete_machine_lacks_nothing(machine: Machine) -> None:
    result = machine.run("--check-only")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert machine.take_journal() == []


@pytest.mark.parametrize(
    ("executable", "packages", "text"),
    [
        ("git", "git", "git"),
        ("cc", "gcc", "a C compiler ('cc')"),
        ("c++", "g++", "a C++ compiler ('c++')"),
        ("python3", "python3 python3-venv python3-dev", "Python 3.11 or newer ('python3')"),
    ],
)
def test_a_missing_executable_is_named(machine: Machine, executable: str, packages: str, text: str) -> None:
    (machine.bin / executable).unlink()
    assert_lacks(machine, packages, text)


@pytest.mark.parametrize(
    ("condition", "packages", "text"),
    [
        (NO_ENSUREPIP, "python3-venv", "the modules venv and ensurepip"),
        (NO_HEADER, "python3-dev", "the header Python.h"),
        (NO_LIBRARY, "python3-dev", "the shared library libpython3."),
        (TOO_OLD, "python3 python3-venv python3-dev", "is 3.10); choose another one: make PYTHON="),
    ],
)
def test_a_missing_part_of_python_is_named(
    machine: Machine, condition: str, packages: str, text: str
) -> None:
    machine.condition(condition)
    assert_lacks(machine, packages, text, str(machine.bin / "python3"))


def test_all_that_is_missing_goes_into_one_line(machine: Machine) -> None:
    for executable in ("git", "cc", "c++"):
        (machine.bin / executable).unlink()
    machine.condition(f"{NO_ENSUREPIP}\n{NO_HEADER}\n{NO_LIBRARY}")
    assert_lacks(machine, "git gcc g++ python3-venv python3-dev")


def test_compilers_may_be_named_by_variables(machine: Machine) -> None:
    assert_lacks(machine, "gcc g++", "('mycc')", "('myc++')", CC="mycc -m64", CXX="myc++")


def test_packages_fit_the_default_python_of_debian(machine: Machine) -> None:
    machine.condition(f"{NO_ENSUREPIP}; sys._base_executable = '/usr/bin/python3'")
    assert_lacks(machine, "python3-venv", f"of {Path('/usr/bin/python3').resolve()}\n")


def test_packages_fit_another_python_of_debian(machine: Machine) -> None:
    machine.condition(f"{NO_ENSUREPIP}; sys._base_executable = '/usr/bin/python-other'")
    assert_lacks(machine, f"python3.{sys.version_info.minor}-venv", "of /usr/bin/python-other\n")


def test_another_python_is_pointed_to_debians(machine: Machine) -> None:
    machine.condition(NO_LIBRARY)
    assert_lacks(machine, "python3-dev", "make PYTHON=/usr/bin/python3")


def test_a_python_that_cannot_run_is_named(machine: Machine) -> None:
    machine.stub("python-broken", "#!/bin/sh\nexit 1\n")
    result = machine.run(PYTHON="python-broken")
    assert result.returncode == 1
    assert "'python-broken' cannot run; choose another Python: make PYTHON=" in result.stderr


def test_the_first_run_installs_and_the_second_does_nothing(machine: Machine) -> None:
    pip = "-m pip --disable-pip-version-check install --quiet"
    base = [
        f"-m venv --clear {ENVIRONMENT}",
        f"{pip} --require-hashes -r requirements/base.txt",
        f"{pip} --no-build-isolation --no-deps --editable .",
    ]
    assert machine.prepare() == base
    assert machine.prepare() == []
    assert machine.prepare("--dev") == [f"{pip} --require-hashes -r requirements/dev.txt"]
    assert machine.prepare("--dev") == []
    assert machine.prepare() == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements/base.txt", "requirements/dev.txt"])
def test_a_changed_input_makes_the_environment_again(machine: Machine, changed: str) -> None:
    first = machine.prepare("--dev")
    with (machine.root / changed).open("a") as file:
        file.write("# changed\n")
    assert machine.prepare("--dev") == first


def test_another_python_makes_the_environment_again(machine: Machine) -> None:
    first = machine.prepare()
    machine.condition("import sys; sys.version = 'another'")
    assert machine.prepare() == first


def test_a_failed_installation_is_repeated(machine: Machine) -> None:
    first = machine.prepare()
    shutil.rmtree(machine.environment)
    (machine.folder / "broken").touch()
    assert machine.run("--venv", ENVIRONMENT).returncode == 1
    machine.take_journal()
    (machine.folder / "broken").unlink()
    assert machine.prepare() == first


def test_a_directory_that_is_no_environment_is_kept(machine: Machine) -> None:
    machine.environment.mkdir()
    (machine.environment / "work").touch()
    result = machine.run("--venv", ENVIRONMENT)
    assert result.returncode == 1
    assert f"{ENVIRONMENT} is no virtual environment" in result.stderr
    assert (machine.environment / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--chek-only",), "unknown argument '--chek-only'; use --check-only"),
        (("--venv",), "--venv needs a directory"),
    ],
)
def test_wrong_usage_is_named(machine: Machine, arguments: tuple[str, ...], text: str) -> None:
    result = machine.run(*arguments)
    assert result.returncode == 2
    assert text in result.stderr
    assert machine.take_journal() == []
