"""One Debian package into one RPM: Fedora's name and paths, real ELF dependencies, no scripts.

Debian's multiarch paths become Fedora's (``/usr/lib/x86_64-linux-gnu`` is ``/usr/lib64``) and its
``Depends`` become ``Requires: deb(NAME)``, so that the closure holds whatever the names are.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import rpm

from backport.run import Command, run
from tests.lab.layout import OLD_DIST, LabError
from tests.lab.rpms import RPM_FILE_NAME, definitions

FEDORA_NAMES = {
    "g++": "gcc-c++", "libc-bin": "glibc-common", "libc6": "glibc", "libc6-dev": "glibc-devel",
    "libcrypt-dev": "libxcrypt-devel", "libdb-dev": "libdb-devel", "libgcc-s1": "libgcc",
    "liblzma5": "xz-libs", "libpcre2-dev": "pcre2-devel", "libsctp-dev": "lksctp-tools-devel",
    "libsctp1": "lksctp-tools", "libstdc++6": "libstdc++", "linux-libc-dev": "kernel-headers",
    "passwd": "shadow-utils", "perl-base": "perl-interpreter", "pkgconf": "pkgconf-pkg-config",
    "procps": "procps-ng", "rpm": "rpm-build", "xz-utils": "xz", "zlib1g": "zlib",
    "zlib1g-dev": "zlib-devel",
}  # fmt: skip
LEFT_OUT = re.compile(
    r"dpkg|debconf|usrmerge|usr-is-merged|dash|debianutils|init-system-helpers|base-files|base-passwd"
    r"|install-info|openssl|openssl-provider-legacy|ca-certificates"
)
"""Debian's own machinery, replaced by the specs in packages/base or not needed by any build."""
LINKS = {
    "bash": {"/usr/bin/sh": "bash"},
    "g++": {"/usr/bin/c++": "g++"},
    "gawk": {"/usr/bin/awk": "gawk"},
    "gcc": {"/usr/bin/cc": "gcc"},
    "util-linux": {"/usr/bin/rename": "rename.ul"},
}
"""What Debian's alternatives and the maintainer scripts would have linked."""
EXTRA_HEADER = {
    "bash": "Provides: /bin/sh /bin/bash",
    "libc-bin": "Provides: /sbin/ldconfig",
    "libc6": "Requires: setup\nRequires: glibc-common\nProvides: rtld(GNU_HASH)",
    "perl-base": "Requires: deb(perl)",
    "pkgconf": "Provides: pkgconfig",
}
EXTRA_SCRIPTS = {"libc-bin": "\n%posttrans -p /usr/sbin/ldconfig\n"}
_MERGED = re.compile(r"^/(bin|sbin|lib64|lib)(?=/|$)")
_MULTIARCH = re.compile(r"^/usr/lib/x86_64-linux-gnu(?=/|$)")
_UNWANTED = re.compile(
    r"/usr/share/(doc|man|info|locale|lintian|bug|menu|doc-base|bash-completion|zsh|fish|gdb|applications|polkit-1"
    r"|metainfo|pixmaps|icons|dbus-1|initramfs-tools|gtk-doc|pkgconfig/personality\.d)(/|$)"
    r"|/usr/lib/(systemd|lsb|udev|init|mime|sysusers\.d|tmpfiles\.d)(/|$)"
    r"|/etc/(init\.d|cron\.\w+|apt|dpkg|systemd|rc.\.d|logrotate\.d|dbus-1)(/|$)"
)
_PKGCONFIG = re.compile(r"/usr/(?:share|lib64)/pkgconfig/(.+)\.pc")
_PERL_MODULE = re.compile(r"/usr/(?:share|lib64)/(?:perl-base|perl5?/\d[\d.]*|perl5|perl)/(.+)\.pm")
_FILESYSTEM_OWNS = frozenset((
    "/", "/boot", "/dev", "/etc", "/etc/pam", "/etc/security", "/home", "/media", "/mnt", "/opt",
    "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/include", "/usr/lib",
    "/usr/lib64", "/usr/libexec", "/usr/local", "/usr/sbin", "/usr/share", "/usr/share/perl5",
    "/usr/src", "/var", "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/mail", "/var/spool",
    "/var/tmp", "/bin", "/sbin", "/lib", "/lib64",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Deb:
    """A Debian package file and the fields of its control file that matter here."""

    path: Path
    name: str
    version: str
    summary: str
    depends: tuple[tuple[str, ...], ...]
    """Every dependency as its alternatives' names."""
    provides: tuple[str, ...]

    @property
    def rpm_name(self) -> str:
        """Fedora's name for it, where the two differ."""
        return FEDORA_NAMES.get(self.name, self.name)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A line of an RPM's file list."""

    path: str
    mode: int
    is_folder: bool

    def __str__(self) -> str:
        quoted = self.path.replace("%", "%%")
        return f'{"%dir " if self.is_folder else ""}%attr({self.mode:o},root,root) "{quoted}"'


def read_debs(paths: Iterable[Path]) -> list[Deb]:
    """The packages that go into the repository; those of Debian's own machinery are dropped."""
    debs = [_read_deb(path) for path in paths]
    return [deb for deb in debs if not LEFT_OUT.fullmatch(deb.name)]


def _read_deb(path: Path) -> Deb:
    shown = run(Command(["dpkg-deb", "--field", path], timeout=60)).text
    fields = dict(re.findall(r"(?m)^(\S+): (.*)$", shown))
    depends = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
    return Deb(
        path=path,
        name=fields["Package"],
        version=fields["Version"],
        summary=fields["Description"],
        depends=tuple(tuple(_names(either, "|")) for either in depends.split(",") if either.strip()),
        provides=tuple(_names(fields.get("Provides", ""), ",")),
    )


def _names(text: str, separator: str) -> list[str]:
    return [re.split(r"[\s(:]", word.strip())[0] for word in text.split(separator) if word.strip()]


def repackage(debs: Sequence[Deb], present: frozenset[str], folder: Path, rpms: Path, *, log: Path) -> None:
    """Make one RPM of each deb, all by one rpmbuild. ``present`` are the names in the repository."""
    for name in ("BUILD", "BUILDROOT", "SPECS", "TREES", "fileattrs"):
        (folder / name).mkdir(parents=True)
    # Of rpm's dependency generators only the one for ELF: the others ask for interpreters by Debian's paths.
    shutil.copy(rpm.expandMacro("%{_fileattrsdir}/elf.attr"), folder / "fileattrs")
    specs = [_prepare(deb, present, folder) for deb in debs]
    defines = {
        "_topdir": str(folder),
        "_rpmdir": str(rpms),
        "_rpmfilename": RPM_FILE_NAME,
        "_fileattrsdir": str(folder / "fileattrs"),
        "_build_id_links": "none",
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
        "__check_files": "%{nil}",
        "_binary_payload": "w1.gzdio",
        "_buildhost": "localhost",
    }
    run(
        Command(
            [
                "rpmbuild",
                "-bb",
                "--quiet",
                "--nodeps",
                "--noclean",
                "--target",
                "x86_64",
                *definitions(defines),
                *specs,
            ],
            timeout=900,
            log=log,
            what="repackaging Debian's packages",
        )
    )


def _prepare(deb: Deb, present: frozenset[str], folder: Path) -> Path:
    tree = folder / "TREES" / deb.name
    entries = _unpack(deb, tree)
    file_list = folder / "SPECS" / f"{deb.name}.files"
    file_list.write_text("".join(f"{entry}\n" for entry in entries))
    spec = folder / "SPECS" / f"{deb.name}.spec"
    spec.write_text(_spec(deb, present, [entry.path for entry in entries], tree, file_list))
    return spec


def fedora_path(path: str) -> str:
    """Where Fedora keeps what Debian keeps at ``path``.

    >>> fedora_path("/lib/x86_64-linux-gnu/libc.so.6")
    '/usr/lib64/libc.so.6'
    """
    return _MULTIARCH.sub("/usr/lib64", _MERGED.sub(r"/usr/\1", path))


def _unpack(deb: Deb, tree: Path) -> list[_Entry]:
    """The package's files below ``tree``, by Fedora's paths; what was unpacked, for the file list."""
    entries: dict[str, _Entry] = {}
    tree.mkdir(parents=True)
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb.path], stdout=subprocess.PIPE) as dpkg,
        tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive,
    ):
        for member in archive:
            path = fedora_path("/" + member.name.removeprefix("./").rstrip("/")) or "/"
            if path in _FILESYSTEM_OWNS or _UNWANTED.match(path):
                continue
            if entry := _unpack_member(archive, member, path, tree):
                entries[path] = entry
    if dpkg.returncode:
        raise LabError(f"{deb.path.name} cannot be unpacked (dpkg-deb: exit code {dpkg.returncode})")
    for path, target in LINKS.get(deb.name, {}).items():
        (tree / path[1:]).symlink_to(target)
        entries[path] = _Entry(path=path, mode=0o777, is_folder=False)
    return list(entries.values())


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, tree: Path) -> _Entry | None:
    target = tree / path[1:]
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return _Entry(path=path, mode=0o755, is_folder=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        return _link(path, member.linkname, target)
    if member.islnk():
        source = tree / fedora_path("/" + member.linkname.removeprefix("./"))[1:]
        target.hardlink_to(source)
        return _Entry(path=path, mode=target.stat().st_mode & 0o7777, is_folder=False)
    content = archive.extractfile(member)
    if content is None:
        return None
    with target.open("wb") as stream:
        shutil.copyfileobj(content, stream)
    # A group bit means nothing without Debian's groups, and rpm strips and scans executables only.
    mode = member.mode & (0o5777 if member.gid else 0o7777) | (0o111 if ".so" in target.name else 0)
    target.chmod(mode)
    return _Entry(path=path, mode=mode, is_folder=False)


def _link(path: str, linkname: str, target: Path) -> _Entry | None:
    absolute = fedora_path(linkname) if linkname.startswith("/") else linkname
    reached = fedora_path(_normal(str(PurePosixPath(path).parent / absolute)))
    if reached == path:
        return None
    if not linkname.startswith("/") and "/" in linkname:
        absolute = reached
    target.symlink_to(absolute)
    return _Entry(path=path, mode=0o777, is_folder=False)


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def _spec(deb: Deb, present: frozenset[str], files: Sequence[str], tree: Path, file_list: Path) -> str:
    epoch, version, release = split_version(deb.version)
    requires = sorted(
        {next(name for name in either if name in present) for either in deb.depends if present & {*either}}
    )
    modules = {match[1].replace("/", "::") for path in files if (match := _PERL_MODULE.fullmatch(path))}
    pkgconfigs = {match[1] for path in files if (match := _PKGCONFIG.fullmatch(path))}
    header = [
        f"Name: {deb.rpm_name}",
        *([f"Epoch: {epoch}"] if epoch else []),
        f"Version: {version}",
        f"Release: {release}{OLD_DIST}",
        f"Summary: {deb.summary.replace('%', '%%')}",
        "License: As in Debian",
        "Requires(pre): filesystem",
        *(f"Provides: deb({name})" for name in (deb.name, *deb.provides)),
        *(f"Requires: deb({name})" for name in requires if name != deb.name),
        *(f"Provides: perl({module})" for module in sorted(modules)),
        *(f"Provides: pkgconfig({name})" for name in sorted(pkgconfigs)),
        *([EXTRA_HEADER[deb.name]] if deb.name in EXTRA_HEADER else []),
    ]
    return "\n".join(header) + (
        "\n\n%description\nRepackaged from Debian.\n"
        f"\n%install\nrm -rf %{{buildroot}}\nmv {tree} %{{buildroot}}\n"
        f"{EXTRA_SCRIPTS.get(deb.name, '')}\n%files -f {file_list}\n"
    )


def split_version(version: str) -> tuple[str, str, str]:
    """A Debian version as RPM's epoch, version and release (without %dist).

    >>> split_version("1:2.38.1-5+deb12u3")
    ('1', '2.38.1', '5+deb12u3')
    """
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-")
    return epoch, (upstream or revision).replace("-", "."), revision if upstream else "1"
