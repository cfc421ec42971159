"""Roots without making one: paths inside them, dnf's configuration, the words that start a sandbox."""

from __future__ import annotations

import configparser
import os
from dataclasses import replace
from pathlib import Path

import pytest

from backport.errors import HostError, ToolError
from backport.roots import dnf as dnf_module
from backport.roots import root as root_module
from backport.roots.dnf import Dnf, ExtraRepository, expand_url, folder_of, render_dnf_conf
from backport.roots.root import BUILDER_UID, Root, clean_root
from backport.roots.sandbox import Bind, Sandbox
from backport.seals import open_sealer
from backport.settings import Key
from backport.target import Target


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target.model_validate(
        {
            "name": "f28", "summary": "Fedora 28", "releasever": "28", "dist": ".fc28", "arch": "x86_64",
            "repositories": [{"id": "fedora", "baseurl": tmp_path.as_uri(), "keys": ["fedora-28"]}],
            "keys": {"fedora-28": {"fingerprint": "A" * 40, "file": str(tmp_path / "key.asc")}},
            "buildroot": ["bash"],
        }
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, target: Target) -> Root:
    path = tmp_path / "root"
    (path / "usr/bin").mkdir(parents=True)
    dnf = Dnf(target=target, root=path, cache=tmp_path / "cache", control=tmp_path / "control")
    return Root(target=target, path=path, log=tmp_path / "root.log", dnf=dnf)


@pytest.mark.parametrize(
    ("links", "path", "resolved"),
    [
        ({}, "/usr/bin/ls", "/usr/bin/ls"),
        ({"bin": "usr/bin"}, "/bin/ls", "/usr/bin/ls"),
        ({"bin": "/usr/bin"}, "/bin/ls", "/usr/bin/ls"),
        ({"usr/bin/sh": "bash"}, "/usr/bin/sh", "/usr/bin/bash"),
        ({"escape": "../../../etc/shadow"}, "/escape", "/etc/shadow"),
        ({"a": "/b", "b": "usr"}, "/a/./bin/../bin", "/usr/bin"),
        ({}, "/../../etc/passwd", "/etc/passwd"),
    ],
)
def test_paths_never_lead_out_of_the_root(
    root: Root, links: dict[str, str], path: str, resolved: str
) -> None:
    for name, aim in links.items():
        (root.path / name).symlink_to(aim)
    assert root.resolve(path) == resolved
    assert root.locate(path) == root.path / resolved.lstrip("/")


def test_links_in_a_circle_are_an_error(root: Root) -> None:
    (root.path / "a").symlink_to("b")
    (root.path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        root.resolve("/a")


def test_dnf_reads_nothing_of_the_host_and_checks_signatures(target: Target) -> None:
    one, other = (Key(fingerprint=letter.upper() * 40, file=Path("/", letter)) for letter in "ab")
    own = ExtraRepository(id="fedora", baseurl="file:///repositories/fedora", keys=(one, other))
    built = ExtraRepository(id="candidates", baseurl="file:///repositories/candidates")
    signed = ExtraRepository(id="signed", baseurl="http://h/", keys=(one,), repo_gpgcheck=True)
    text = render_dnf_conf(target, [own, built, signed])
    conf = configparser.ConfigParser(interpolation=None)
    conf.read_string(text)
    assert conf.sections() == ["main", "fedora", "candidates", "signed"]
    main = conf["main"]
    assert (main["plugins"], main["reposdir"], main["varsdir"]) == ("0", "/dev/null", "/dev/null")
    assert (main["gpgcheck"], main["localpkg_gpgcheck"], main["install_weak_deps"]) == ("1", "1", "0")
    assert conf["fedora"]["gpgcheck"] == "1"
    assert conf["fedora"]["gpgkey"] == "file:///a file:///b"
    assert (conf["candidates"]["gpgcheck"], "gpgkey" in conf["candidates"]) == ("0", False)
    assert [conf[name]["repo_gpgcheck"] for name in conf.sections()[1:]] == ["0", "0", "1"]


def test_urls_are_expanded_as_dnf_does(target: Target) -> None:
    assert expand_url("https://h/$releasever/$basearch/$arch/", target) == "https://h/28/x86_64/x86_64/"


def test_only_file_urls_are_folders() -> None:
    assert folder_of("file:///srv/a%20b/") == Path("/srv/a b/")
    assert folder_of("https://h/srv") is None


def test_an_extra_repository_may_be_a_folder(tmp_path: Path) -> None:
    repository = ExtraRepository.of_folder("candidates", tmp_path / "a b")
    assert folder_of(repository.baseurl) == (tmp_path / "a b").resolve()


@pytest.mark.parametrize("name", ["-y", "--config=x", "http://h/x", "/srv/evil.rpm", "a\nb"])
def test_what_dnf_would_not_take_for_a_name_is_refused(root: Root, name: str, tmp_path: Path) -> None:
    (tmp_path / "control" / "keys").mkdir(parents=True)
    (tmp_path / "control" / "keys" / f"{'A' * 40}.asc").touch()
    with pytest.raises(ToolError, match="cannot be installed"):
        root.install([name])


def test_a_sandbox_shares_nothing_that_is_not_named() -> None:
    sandbox = Sandbox(mounts=("--bind", "/r", "/"), capabilities=("SETUID",))
    words = sandbox.with_binds([Bind(host=Path("/a"), inside="/b")]).command(["true"], status=7, seccomp=8)
    assert words[0] == "bwrap"
    assert {"--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"} <= set(words)
    assert "--die-with-parent" in words
    joined = " ".join(words)
    assert "--bind /r / --ro-bind /a /b" in joined
    assert "--cap-drop ALL --cap-add CAP_SETUID" in joined
    assert joined.endswith("--seccomp 8 --json-status-fd 7 -- true")
    assert "--unshare-net" not in Sandbox(mounts=(), network=True).command(["true"])


def test_the_builder_is_added_once_and_owns_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: dict[Path, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owners.update({path: (uid, gid)}))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    for _ in range(2):
        root_module._add_builder(tmp_path)
    assert (tmp_path / "etc/passwd").read_text().count(f":{BUILDER_UID}:") == 1
    assert (tmp_path / "etc/passwd").read_text().startswith("root:")
    assert (tmp_path / "etc/group").read_text() == f"root:x:0:\nmock:x:{BUILDER_UID}:\n"
    assert owners == {tmp_path / "builddir": (BUILDER_UID, BUILDER_UID)}
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_a_base_root_is_intact_only_with_its_own_seal(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root_module, "KEY", tmp_path / "keys" / "key")
    base = tmp_path / "base-1"
    base.mkdir()
    root.path.rename(base / "root")
    assert not root_module._is_intact(base)
    (base / "seal").write_text(root_module._seal(base / "root", base))
    assert root_module._is_intact(base)
    assert not root_module._is_intact(base.rename(tmp_path / "base-2"))
    (tmp_path / "base-2").rename(base)
    file = base / "root" / "usr" / "bin" / "tool"
    file.touch()
    assert not root_module._is_intact(base)
    file.unlink()
    assert root_module._is_intact(base)
    (tmp_path / "keys" / "key").unlink()
    assert not root_module._is_intact(base)


def test_roots_are_not_made_where_others_can_write(target: Target, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    if os.geteuid() == 0:
        with (
            pytest.raises(HostError, match=f"^{cache}: others can write"),
            clean_root(target, cache=cache, workspace=tmp_path),
        ):
            pass
        assert not list(cache.iterdir())


def test_metadata_is_known_only_where_it_is_the_present_one(root: Root, target: Target) -> None:
    folder = root.path.parent / "mirror"
    repository = ExtraRepository.of_folder("fedora", folder)
    (folder / "repodata").mkdir(parents=True)
    (folder / "repodata" / "repomd.xml").write_text("new")
    assert not root.dnf._has_metadata([repository])
    known = root.dnf.cache / "fedora-0123" / "repodata" / "repomd.xml"
    known.parent.mkdir(parents=True)
    known.write_text("old")
    assert not root.dnf._has_metadata([repository])
    known.write_text("new")
    assert root.dnf._has_metadata([repository, replace(repository, id="candidates", baseurl="file:///no")])


def test_metadata_without_its_seal_is_forgotten(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dnf_module, "KEY", tmp_path / "keys" / "key")
    known = root.dnf.cache / "fedora-0123" / "repodata" / "repomd.xml"
    package = root.dnf.cache / "fedora-0123" / "packages" / "bash.rpm"

    def sealed() -> None:
        for path in (known, package):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("good")
        seal = open_sealer(dnf_module.KEY).seal("metadata", str(root.dnf.cache), root.dnf._state())
        root.dnf._seal.write_text(seal)

    sealed()
    (root.dnf.cache / ".lock").write_text("1")
    package.write_text("verified by its signature")
    root.dnf._forget_unsealed(root.log)
    assert known.is_file()
    assert not root.log.exists()
    known.write_text("evil")
    root.dnf._forget_unsealed(root.log)
    assert not known.exists()
    assert "is not as it was sealed" in root.log.read_text()
    sealed()
    root.dnf._seal.unlink()
    root.dnf._forget_unsealed(root.log)
    assert not known.exists()
    assert package.is_file()


def test_a_base_root_depends_on_what_it_is_made_from(target: Target, tmp_path: Path) -> None:
    repomd = tmp_path / "repodata" / "repomd.xml"
    repomd.parent.mkdir()
    repomd.write_text("1")
    key = root_module._base_key(target, ["bash"])
    assert root_module._base_key(target, ["bash"]) == key
    others = {root_module._base_key(target, ["bash", "gcc"])}
    changed = target.model_copy(update={"keys": {"fedora-28": Key(fingerprint="B" * 40, file=Path("/key"))}})
    others.add(root_module._base_key(changed, ["bash"]))
    repomd.write_text("2")
    others.add(root_module._base_key(target, ["bash"]))
    assert len(others | {key}) == 4


def test_a_repository_that_is_not_there_is_named(target: Target, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"repodata/repomd\.xml: No such file") as caught:
        root_module._base_key(target, ["bash"])
    assert caught.value.hint
    assert "mirror" in caught.value.hint


def test_a_foreign_architecture_is_refused(target: Target, tmp_path: Path) -> None:
    foreign = target.model_copy(update={"arch": "s390x"})
    with pytest.raises(HostError, match="s390x"), clean_root(foreign, cache=tmp_path, workspace=tmp_path):
        pass
