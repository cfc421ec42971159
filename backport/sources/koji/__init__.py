"""A Koji build system as a source: what its hub says, and where its file server has it."""
