"""Signed evidence: where published packages come from, and what was tested."""
