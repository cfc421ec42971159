"""backport as a package: built by its own builder, installed in a clean root, and used there."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backport.artifacts import BuildOptions, BuiltRpms, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.builders import BuildRequest
from backport.builders.chroot import ChrootBuilder
from backport.repodata import write_repodata
from backport.roots.root import ExtraRepository, Root, clean_root
from backport.run import Command
from backport.target import Target
from tests.e2e import hello
from tests.lab import python
from tests.lab.layout import Lab

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def repository(lab: Lab) -> Path:
    """Python and the host's programs, as packages of the look-alike."""
    return python.ensure(lab, lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture(scope="module")
def built(
    repository: Path, f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> BuiltRpms:
    """The packages, from what is committed."""
    folder = tmp_path_factory.mktemp("own")
    sources = folder / "sources"
    subprocess.run([sys.executable, ROOT / "packaging/sources.py", sources], check=True, timeout=600)
    spec = folder / "backport.spec"
    shutil.copy(ROOT / "packaging/backport.spec", spec)
    nevra = Nevra(name="backport", version="0.1.0", release="1.fc29", arch="src")
    source = SourceRpm(
        rpm=Rpm(nevra=nevra, path=folder / nevra.filename, sha256="0" * 64), url="file:///",
        signing_key="A" * 40, build_requires=(), changelog_time=hello.CHANGELOG_DAY,
    )  # fmt: skip
    patched = PatchedSrpm(
        source=source, spec=spec, sources=sources, sha256=hashlib.sha256(spec.read_bytes()).hexdigest(),
        diff="", options=BuildOptions(),
    )  # fmt: skip
    builder = ChrootBuilder(target=f28, cache=root_cache)
    return builder.build(BuildRequest(patched=patched, candidates=repository, workspace=folder))


@pytest.fixture(scope="module")
def root(
    built: BuiltRpms,
    repository: Path,
    f28: Target,
    root_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Root]:
    """A root in which the packages are installed."""
    own = tmp_path_factory.mktemp("repository")
    for rpm in built.rpms:
        shutil.copy(rpm.path, own)
    write_repodata(own, compression=f28.compression)
    extra = [ExtraRepository.of_folder("own", own), ExtraRepository.of_folder("python", repository)]
    with clean_root(f28, cache=root_cache, workspace=own) as made:
        made.install(["backport"], extra=extra)
        yield made


def run(root: Root, *argv: str) -> str:
    return root.run(Command(argv, timeout=120), user="builder").text


def test_the_command_runs_as_anybody_without_what_building_needs(root: Root) -> None:
    assert not root.locate("/usr/bin/bwrap").exists()
    assert "backport build" in run(root, "backport", "--help")
    assert run(root, "backport", "maillog", "--help")


def test_recipes_targets_and_patches_come_along(root: Root) -> None:
    text = run(root, "python3", "-sPc", (
        "import sys; sys.path.insert(0, '/usr/lib/backport');"
        "from backport.recipe import find_settings; from backport.site import find_target, load_site;"
        "paths = load_site(None).paths;"
        "recipe = find_settings(paths.search_path('recipes'), 'openssl', what='recipe');"
        "print(find_target(load_site(None), 'f28').name, recipe, paths.patches_of(recipe.parent))"
    ))  # fmt: skip
    data = "/usr/lib/backport/backport/data"
    assert text == f"f28 {data}/specs/openssl.toml {data}/patches\n"


def test_every_command_has_a_man_page_and_shells_complete(root: Root) -> None:
    for command in ("", "-build", "-repo-rollback", "-probe"):
        assert list(root.locate("/usr/share/man/man1").glob(f"backport{command}.1*"))
    for place in (
        "bash-completion/completions/backport", "zsh/site-functions/_backport",
        "fish/vendor_completions.d/backport.fish",
    ):  # fmt: skip
        assert "BACKPORT_COMPLETE" in root.locate(f"/usr/share/{place}").read_text()


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (ROOT / "packaging").glob("backport-nightly.*"):
        # The program is on no host that only tests.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/backport", "/usr/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *tmp_path.iterdir()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")


def test_sysusers_and_tmpfiles_make_the_user_and_the_folders(tmp_path: Path) -> None:
    for kind, folder in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")):
        (tmp_path / "usr/lib" / folder).mkdir(parents=True)
        shutil.copy(ROOT / "packaging" / f"backport.{kind}", tmp_path / "usr/lib" / folder / "backport.conf")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True, timeout=60)
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create"], check=True, timeout=60)
    assert "backport:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "etc/backport/gnupg").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "var/lib/backport").stat().st_uid != 0
