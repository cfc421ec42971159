"""Signing keys, and what is signed with them."""
