"""The host's own Python bindings, which no package registry carries: imported when they are needed."""

from __future__ import annotations

import ctypes
import importlib
import sys
import warnings
from typing import Any

from backport.errors import HostError

PACKAGES = {
    "rpm": "python3-rpm",
    "solv": "python3-solv",
    "createrepo_c": "python3-createrepo_c (Debian: python3-createrepo-c)",
}
"""What the host's packages bring to Python."""
LIBRARIES = ("cyclonedx", "koji", "requests", "tenacity", "urllib3")
"""What the extra ``build`` of backport brings: pip's packages for whatever is more than examining."""


def import_bindings(name: str) -> Any:
    """The module ``name`` of the host's packages. Raises ImportError.

    Python 3.12 and later warn of types without ``__module__`` while SWIG's bindings make theirs. Where
    warnings are errors, that would leave the types half made, and their first use crash the process.
    """
    if name not in sys.modules:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
            importlib.import_module(name)
        _keep_runtime()
    return importlib.import_module(name)


def bindings(name: str) -> Any:
    """The same. Raises HostError that names the package where it is not installed."""
    try:
        return import_bindings(name)
    except ImportError:
        raise missing(name) from None


def missing(name: str) -> HostError:
    """The error for a module of `PACKAGES` or `LIBRARIES` that this Python has not."""
    if name in LIBRARIES:
        return HostError(
            f"Python's library {name!r} is not installed for {sys.executable}",
            hint="pip install 'backport[build]' brings what building and publishing need",
        )
    return HostError(
        f"Python's bindings {name!r} are not installed for {sys.executable}",
        hint=f"install {PACKAGES[name]}; a venv sees them only if made with --system-site-packages",
    )


def _keep_runtime() -> None:
    """Keep SWIG's type table to the very end of the process.

    Its destructor makes one more such type, when the interpreter has cleared the warnings' filters perhaps:
    the warning then fails, and the process crashes after all its work is done.
    """
    for name, module in tuple(sys.modules.items()):
        if name.startswith("swig_runtime_data"):
            for value in vars(module).values():
                if type(value).__name__ == "PyCapsule":
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
