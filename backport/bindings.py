"""The host's own Python bindings, which no package registry carries: imported when they are needed."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def import_bindings(name: str) -> Any:
    """The module ``name`` of the host's packages. Raises ImportError.

    Python 3.12 and later warn of types without ``__module__`` while SWIG's bindings make theirs. Where
    warnings are errors, that would leave the types half made, and their first use crash the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
        return importlib.import_module(name)
