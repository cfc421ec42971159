"""How stages tell what they are doing; what is shown of it is the command line's business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """The listener to long work."""

    def note(self, message: str) -> None:
        """One thing is being done now, in a few words without a full stop."""

    def transfer(self, what: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes of ``what`` have arrived (None: nobody knows how many)."""


class Silent:
    """A listener that shows nothing."""

    def note(self, message: str) -> None:
        """Show nothing."""

    def transfer(self, what: str, done: int, total: int | None) -> None:
        """Show nothing."""
