"""mock's configuration for a target, the same for use by hand and by the builder.

mock reads ``site-defaults.cfg`` and its logging from the folder of its configurations, and the files of its
user, behind or before every configuration that it is given (``load_config`` in its sources). A builder's
configuration has a folder of its own, so that what the host's files say changes neither results nor logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from backport.builders.common import BuildRequest, build_macros
from backport.builders.mockhost import UNREGISTERED, container_limits
from backport.errors import BuildRootError, as_kind
from backport.files import write_atomically
from backport.roots.dnf import ExtraRepository, need_sha1, own_repositories, render, with_checked_keys
from backport.roots.limits import Bounds
from backport.site import Mock
from backport.target import Target
from backport.trust import SHA1_POLICY, SHA1_POLICY_VARIABLE

_CACHE = Path("/var/cache/mock")
_LOGGING = """\
[formatters]
keys: detailed,simple,unadorned,state
[formatter_detailed]
format: %(levelname)s %(filename)s:%(lineno)d:  %(message)s
[formatter_simple]
format: %(levelname)s: %(message)s
[formatter_unadorned]
format: %(message)s
[formatter_state]
format: %(asctime)s - %(message)s
[handlers]
keys: console
[handler_console]
class: StreamHandler
args: []
formatter: simple
level: INFO
[loggers]
keys: root,build
[logger_root]
level: NOTSET
handlers: console
[logger_build]
level: NOTSET
handlers:
qualname: mockbuild.Root.build
propagate: 0
"""
"""What mock needs to write its logs as it does by default, and its own account to standard error."""


@as_kind(BuildRootError)
def write_configuration(
    target: Target, folder: Path, request: BuildRequest, *, settings: Mock
) -> tuple[str | Path, ...]:
    """Write a folder of configurations for a build, keys included; mock's options that choose it.

    What is written refers to ``folder``, which mock's user must be able to enter. Raises BuildRootError for
    a key that is not the pinned one.
    """
    keys, place = folder / "keys", folder / "etc"
    place.mkdir(parents=True)
    repositories = [
        with_checked_keys(each, keys, seen_at=keys) for each in (*own_repositories(target), *request.extra)
    ]
    environment = {}
    if need_sha1(own_repositories(target)):
        policy = keys / "sha1-self-signature.toml"
        write_atomically(policy, SHA1_POLICY)
        environment[SHA1_POLICY_VARIABLE] = str(policy)
    text = render_config(
        target, repositories=repositories, settings=settings, environment=environment, bounds=request.bounds
    )
    config = place / f"{target.name}-{target.arch}.cfg"
    for path, content in (
        (place / "site-defaults.cfg", ""),
        (place / "logging.ini", _LOGGING),
        (config, text),
    ):
        write_atomically(path, content)
    return ("--configdir", place, "-r", config)


def render_config(
    target: Target,
    *,
    repositories: Sequence[ExtraRepository] | None = None,
    settings: Mock | None = None,
    environment: Mapping[str, str] | None = None,
    bounds: Bounds | None = None,
) -> str:
    """The configuration of mock for a target, the same for use by hand and by the builder.

    ``repositories`` take the place of the target's own; ``settings`` are the site's, without which the host's
    own configuration of mock stays in force; ``environment`` is added to that of dnf and of builds, which are
    held to the ``bounds``.
    """
    own = own_repositories(target)
    by_hand = repositories is None and need_sha1(own)
    return render(
        "mock.cfg.j2", target=target, root=root_name(target), macros=build_macros(target),
        repositories=own if repositories is None else repositories, environment=environment or {},
        own=settings is not None, settings=settings or Mock(), cache=_CACHE,
        container=(*UNREGISTERED, *(container_limits(bounds) if bounds else ())),
        sha1_policy=SHA1_POLICY.splitlines() if by_hand else [], sha1_policy_variable=SHA1_POLICY_VARIABLE,
    )  # fmt: skip


def root_name(target: Target) -> str:
    """The name of the target's roots, before what tells them apart."""
    return f"backport-{target.name}-{target.arch}"


def cached_metadata(target: Target) -> Path:
    """Where mock keeps what dnf downloads for the target's roots (its plugin yum_cache)."""
    return _CACHE / root_name(target) / "dnf_cache"
