"""Modules that are loaded only when something of them is used.

Many modules import at their beginning what they need at times or never: an action would spend most of its time on that.
Only the moment of the loading is another; whatever is asked of a module that was put off loads it.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Late(ModuleType):
    """A module that is there and not loaded yet."""

    def __getattr__(self, name: str) -> object:
        if name == "__path__":
            # What a package's modules are looked for in: they can be had without the package itself.
            locations = _spec(self.__name__).submodule_search_locations
            if locations is not None:
                return locations
        # For others the import system asks when somebody imports the module.
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _load(self)
        return getattr(self, name)


def _spec(name: str) -> ModuleSpec:
    package = sys.modules.get(name.rpartition(".")[0])
    spec = PathFinder.find_spec(name, getattr(package, "__path__", None))
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return spec


def _load(module: ModuleType) -> None:
    """Run the module's code in the object that those have who have imported it; raises ModuleNotFoundError."""
    from importlib.util import module_from_spec

    spec = _spec(module.__name__)
    assert spec.loader is not None
    module.__class__ = ModuleType
    vars(module).update(vars(module_from_spec(spec)))
    spec.loader.exec_module(module)


def put_off(*names: str) -> None:
    """Let modules be loaded when they are first used, by whoever has imported them.

    For a package that is what it imports itself: its modules can be imported as ever. What is loaded stays loaded.
    """
    for name in names:
        if name in sys.modules:
            continue
        package, _, last = name.rpartition(".")
        late = sys.modules[name] = _Late(name)
        if package:
            put_off(package)
            setattr(sys.modules[package], last, late)
