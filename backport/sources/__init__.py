"""Source packages: resolved at a Koji hub, fetched, locked, put in order."""
