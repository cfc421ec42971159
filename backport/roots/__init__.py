"""Clean roots: made by dnf, entered by bubblewrap, cleared away."""
