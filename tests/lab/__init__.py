"""The offline lab: a Fedora 28 look-alike, its Koji, and the packages that backport is tried on."""
