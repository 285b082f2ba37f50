"""Where plugins come from: built in, entry points, the setting `plugins`, the setting `plugins_dir`."""

import importlib
import importlib.metadata
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from atlas_plugin.errors import PluginError
from atlas_plugin.host.settings import Settings
from atlas_plugin.version import __version__

ENTRY_POINT_GROUP = "atlas.plugins"
_READY_MADE = "atlas_plugin.plugins"
_DISABLE = "no:"


@dataclass(frozen=True)
class Candidate:
    """A plugin before it is loaded. `load` runs its code and may raise anything."""

    name: str
    source: str
    """builtin, entry_point, module or file."""
    location: str
    """The module, or the path of the file."""
    load: Callable[[], object]
    version: str | None = None
    explicit: bool = False
    """Whether a setting names it, so that a user who requires Python requires it too."""


def disabled_names(settings: Settings) -> list[str]:
    """The names that `no:NAME` entries of the setting `plugins` turn off."""
    return [entry[len(_DISABLE) :] for entry in settings.texts("plugins") if entry.startswith(_DISABLE)]


def find(settings: Settings, builtins: Mapping[str, object]) -> Iterator[Candidate]:
    """All plugins in load order, first those given, without loading any."""
    for name, plugin in builtins.items():
        yield Candidate(name, "builtin", type(plugin).__module__, partial(_given, plugin), __version__)
    wanted = settings.texts("plugins")
    installed = sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name)
    for entry_point in installed:
        name, version = entry_point.name, entry_point.dist.version if entry_point.dist else None
        is_wanted = name in wanted
        yield Candidate(name, "entry_point", entry_point.value, entry_point.load, version, explicit=is_wanted)
    named = {entry_point.name for entry_point in installed}
    for entry in (entry for entry in wanted if entry not in named):
        if entry.endswith(".py"):
            yield _file(Path(entry), explicit=True)
        elif _is_ready_made(entry):
            place = f"{_READY_MADE}.{entry}"
            yield Candidate(
                entry, "module", place, partial(_load_ready_made, place), __version__, explicit=True
            )
        elif not entry.startswith(_DISABLE):
            yield Candidate(entry, "module", entry, partial(_load_module, entry), explicit=True)
    if directory := settings.text("plugins_dir"):
        yield from _directory(Path(directory), settings)


def content_of(candidate: Candidate) -> bytes:
    """What its file holds; empty where it is none, or cannot be read."""
    try:
        return Path(candidate.location).read_bytes() if candidate.source == "file" else b""
    except OSError:
        return b""


def _directory(directory: Path, settings: Settings) -> Iterator[Candidate]:
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".py")
    except OSError as error:
        message = f"cannot read the plugins directory: {error}; check {settings.switches('plugins_dir')}"
        yield Candidate(
            str(directory), "file", str(directory), partial(_refuse, str(directory), message), explicit=True
        )
        return
    for path in paths:
        if not path.name.startswith("_"):
            yield _file(path, explicit=False)


def _file(path: Path, *, explicit: bool) -> Candidate:
    return Candidate(path.stem, "file", str(path.absolute()), partial(_load_file, path), explicit=explicit)


def _is_ready_made(name: str) -> bool:
    is_name = name.isidentifier() and not name.startswith("_")
    return is_name and importlib.util.find_spec(f"{_READY_MADE}.{name}") is not None


def _load_ready_made(place: str) -> object:
    # An object of its own, so that two servers of one process are configured apart.
    plugin: object = importlib.import_module(place).Plugin()
    return plugin


def _load_module(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        message = (
            f"no module '{error.name}' in {sys.prefix}: install it there, or give the path of a .py file"
        )
        raise PluginError(name, message) from None


class _FileLoader(SourceFileLoader):
    """Reads the file itself: compiled code kept beside it may count as fresh after a change."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> object:
    name = _free_name(f"atlas_user_plugin_{path.stem}")
    spec = importlib.util.spec_from_file_location(name, path, loader=_FileLoader(name, str(path)))
    if spec is None or spec.loader is None or not path.is_file():
        raise PluginError(path.stem, f"there is no file {path.absolute()}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look the module up while it runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _free_name(name: str) -> str:
    """The name, or one with a number where another server of this process has one of that name."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in sys.modules)


def _given(plugin: object) -> object:
    return plugin


def _refuse(name: str, message: str) -> object:
    raise PluginError(name, message)
