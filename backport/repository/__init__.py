"""The published repository: made, switched, explained, changed and verified."""
