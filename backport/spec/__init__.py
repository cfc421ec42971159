"""The lossless spec editor; see :mod:`backport.spec.edit`."""

from backport.spec.anchors import SpecEdit
from backport.spec.changelog import ChangelogEntry
from backport.spec.edit import SpecPatch, edit_spec

__all__ = ["ChangelogEntry", "SpecEdit", "SpecPatch", "edit_spec"]
