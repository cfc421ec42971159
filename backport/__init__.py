"""Rebuild a newer release's packages for an older one: patched, signed, tested, published."""

__version__ = "0.1.0"
