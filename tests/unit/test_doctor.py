"""The doctor, on made-up hosts: every lack is found and told with the right command."""

from __future__ import annotations

import pwd
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from backport import doctor
from backport.artifacts import Check, Verdict
from backport.doctor import CACHE_BYTES, GIB, Probes, examine_host
from backport.errors import HostError, SignError
from backport.seals import open_sealer, require_own
from backport.settings import Key
from backport.site import Mock, Paths, Signing, Site
from backport.sources import Source

ROOT = Path(__file__).parents[2]
DEBIAN = {"ID": "debian", "VERSION_ID": "12"}
FEDORA = {"ID": "fedora"}
ROCKY = {"ID": "rocky", "ID_LIKE": "rhel centos fedora"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian"}
SUSE = {"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}


def nothing(_argument: object) -> None:
    """What a probe says where all is well."""


def mock_user() -> pwd.struct_passwd:
    """Made anew each time: Python 3.11 complains at its end of one that outlives its type."""
    return pwd.struct_passwd(("mockrunner", "x", 990, 990, "", "/", "/sbin/nologin"))


class Host:
    """A host where all is well, but for what a test takes away."""

    def __init__(self, release: dict[str, str] | None = None) -> None:
        self.release = DEBIAN if release is None else release
        self.missing: set[str] = set()
        self.started: list[Sequence[str]] = []
        self.changes: dict[str, object] = {}

    def import_module(self, name: str) -> None:
        if name in self.missing:
            raise ImportError(f"No module named '{name}'")

    def probes(self) -> Probes:
        probes: dict[str, object] = {
            "euid": lambda: 0,
            "os_release": lambda: self.release,
            "which": lambda program: None if program in self.missing else f"/usr/bin/{program}",
            "import_module": self.import_module,
            "start": self.started.append,
            "free_bytes": lambda _folder: 100 * GIB,
            "writable": lambda _folder: True,
            "can_link": lambda _origin, _destination: True,
            "mock_user": mock_user,
            "mock_way": lambda _user, _folder: None,
            "mock_container": lambda: None,
            "mock_builddep": lambda: True,
            "signing_key": lambda _signing: "A" * 40,
            "check_key": nothing,
            "source_version": lambda _source: "Koji 1.35.3",
            "published": lambda _site: (),
            "require_own": nothing,
            "open_sealer": nothing,
        }
        return Probes(**{**probes, **self.changes})  # type: ignore[arg-type]  # named by the tests

    def examine(self, site: Site | None = None) -> dict[str, Check]:
        checks = examine_host(site or Site(), probes=self.probes())
        assert len({check.id for check in checks}) == len(checks)
        return {check.id: check for check in checks}


def faults(checks: dict[str, Check]) -> dict[str, str]:
    """What stops, with its advice."""
    return {name: check.advice for name, check in checks.items() if check.stops}


def test_a_host_that_has_all_passes() -> None:
    checks = Host().examine()
    assert {check.verdict for check in checks.values()} == {Verdict.PASS}
    assert {check.advice for check in checks.values()} == {""}


def test_what_clients_are_told_elsewhere_stops() -> None:
    host = Host()
    told = Check(
        id="published.f28", title="f28", verdict=Verdict.FAIL, advice="backport repo gc --target f28"
    )
    host.changes["published"] = lambda _site: (told,)
    assert faults(host.examine()) == {"published.f28": "backport repo gc --target f28"}


@pytest.mark.parametrize(
    ("release", "program", "command"),
    [
        (DEBIAN, "dnf", "apt-get install -y dnf"),
        (DEBIAN, "rpmsign", "apt-get install -y rpm"),
        (DEBIAN, "gpg-agent", "apt-get install -y gpg-agent"),
        (DEBIAN, "bwrap", "apt-get install -y bubblewrap"),
        (UBUNTU, "bwrap", "apt-get install -y bubblewrap"),
        (FEDORA, "rpmsign", "dnf install -y rpm-sign"),
        (FEDORA, "gpg", "dnf install -y gnupg2"),
        (ROCKY, "bwrap", "dnf install -y bubblewrap"),
        (SUSE, "gpg", "install the package that brings gpg (gnupg2 on Fedora)"),
        ({}, "rpmsign", "install the package that brings rpmsign (rpm-sign on Fedora)"),
    ],
)
def test_a_missing_program_is_told_with_the_command(
    release: dict[str, str], program: str, command: str
) -> None:
    host = Host(release)
    host.missing.add(program)
    assert faults(host.examine()) == {f"program.{program}": command}


@pytest.mark.parametrize(
    ("release", "module", "command"),
    [
        (DEBIAN, "rpm", "apt-get install -y python3-rpm"),
        (DEBIAN, "createrepo_c", "apt-get install -y python3-createrepo-c"),
        (FEDORA, "createrepo_c", "dnf install -y python3-createrepo_c"),
        (FEDORA, "koji", "dnf install -y python3-koji"),
    ],
)
def test_a_missing_module_is_told_with_the_command(
    release: dict[str, str], module: str, command: str
) -> None:
    host = Host(release)
    # Program and module may have one name; here it is the module that lacks.
    host.changes["which"] = lambda _program: "/usr/bin/x"
    host.missing.add(module)
    advice = faults(host.examine())
    assert list(advice) == [f"module.{module}"]
    assert advice[f"module.{module}"].startswith(command)
    assert "--system-site-packages" in advice[f"module.{module}"]


def test_mock_is_asked_for_only_where_the_site_builds_with_it() -> None:
    host = Host(FEDORA)
    host.missing.add("mock")
    assert faults(host.examine(Site(builder="auto"))) == {}
    assert faults(host.examine(Site(builder="mock"))) == {"program.mock": "dnf install -y mock"}


def test_mock_is_examined_where_it_would_be_taken() -> None:
    checks = Host(FEDORA).examine()
    assert checks["mock.user"].found == "mockrunner"
    assert checks["mock.cache"].verdict is Verdict.PASS
    assert checks["program.mock"].verdict is Verdict.PASS
    ruled_out = Host(FEDORA).examine(Site(builder="chroot"))
    missing = Host(FEDORA)
    missing.missing.add("mock")
    for others in (ruled_out, missing.examine()):
        assert not {"mock.user", "mock.cache", "program.mock"} & set(others)


def test_what_mock_takes_of_the_host_is_tried() -> None:
    def refused() -> None:
        raise HostError(
            "systemd-nspawn cannot start a container: exit code 1: Failed to stat /dev/loop-control"
        )

    host = Host(FEDORA)
    host.changes |= {
        "mock_container": refused,
        "mock_builddep": lambda: False,
        "free_bytes": lambda folder: GIB if folder == Path("/") else 100 * GIB,
    }
    site = Site(mock=Mock(basedir=Path("/no-such-folder/mock")))
    checks = host.examine(site)
    assert "loop-control" in checks["mock.container"].found
    assert set(faults(checks)) >= {"mock.container", "mock.builddep", "space.mock"}
    assert checks["mock.builddep"].advice == "dnf install -y python3-dnf-plugins-core"
    assert "mock.basedir" in checks["space.mock"].advice
    host.missing.add("systemd-nspawn")
    assert host.examine(site)["mock.container"].advice == "dnf install -y systemd-container"
    simple = host.examine(Site(mock=Mock(isolation="simple", bootstrap_image="fedora:28")))
    assert not {"mock.container", "mock.builddep"} & set(simple)


def test_a_mock_without_user_is_told_with_the_command() -> None:
    def nobody() -> pwd.struct_passwd:
        raise HostError("its group has no member", hint="make one: useradd --system --groups mock mockrunner")

    host = Host(FEDORA)
    host.changes["mock_user"] = nobody
    checks = host.examine()
    assert faults(checks) == {"mock.user": "make one: useradd --system --groups mock mockrunner"}
    assert checks["mock.cache"].verdict is Verdict.SKIPPED


def test_a_cache_that_mocks_user_cannot_enter_is_told(tmp_path: Path) -> None:
    asked: list[Path] = []

    def barred(_user: pwd.struct_passwd, folder: Path) -> None:
        asked.append(folder)
        raise HostError("mock's user mockrunner cannot enter /root", hint="chmod o+x /root")

    host = Host(FEDORA)
    host.changes["mock_way"] = barred
    paths = Site().paths.model_copy(update={"cache": tmp_path / "not" / "there"})
    assert faults(host.examine(Site(paths=paths))) == {"mock.cache": "chmod o+x /root"}
    assert asked == [tmp_path]


def test_the_readme_installs_on_fedora_what_is_asked_for() -> None:
    [words] = re.findall(r"^dnf install ((?:.*\\\n)*.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    needs = (*doctor._PROGRAMS, doctor._MOCK, doctor._BUILDDEP, *doctor._MODULES)
    wanted = {need.fedora for need in needs} | {"distribution-gpg-keys"}
    assert set(words.replace("\\", "").split()) == wanted


def test_where_mock_is_not_packaged_the_other_builder_is_named() -> None:
    host = Host(DEBIAN)
    host.missing.add("mock")
    assert 'builder = "chroot"' in faults(host.examine(Site(builder="mock")))["program.mock"]


def test_an_ordinary_user_is_told() -> None:
    host = Host()
    host.changes["euid"] = lambda: 1000
    checks = host.examine()
    assert list(faults(checks)) == ["root"]
    assert checks["root"].found == "uid 1000"


def test_the_sandbox_is_really_tried() -> None:
    host = Host()
    host.examine()
    [argv] = host.started
    assert argv[0] == "bwrap"
    assert {"--unshare-net", "--unshare-pid"} <= set(argv)


def test_a_container_without_namespaces_is_told() -> None:
    def refused(_argv: Sequence[str]) -> None:
        raise HostError("bwrap: creating new namespace failed")

    host = Host()
    host.changes["start"] = refused
    checks = host.examine()
    assert "privileged" in faults(checks)["sandbox"]
    assert "creating new namespace failed" in checks["sandbox"].found


def test_without_bubblewrap_the_sandbox_is_not_blamed() -> None:
    host = Host()
    host.missing.add("bwrap")
    checks = host.examine()
    assert list(faults(checks)) == ["program.bwrap"]
    assert checks["sandbox"].verdict is Verdict.SKIPPED
    assert host.started == []


def test_folders_that_do_not_exist_are_judged_by_where_they_would_be(tmp_path: Path) -> None:
    asked: list[Path] = []

    def free(folder: Path) -> int:
        asked.append(folder)
        return CACHE_BYTES - 1

    host = Host()
    host.changes["free_bytes"] = free
    paths = Site().paths.model_copy(
        update={"cache": tmp_path / "a/b/cache", "repository": tmp_path / "repository"}
    )
    checks = host.examine(Site(paths=paths, builder="chroot"))
    assert asked == [tmp_path, tmp_path]
    assert list(faults(checks)) == ["space.cache"]
    assert checks["space.cache"].expected == "8 GiB"
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_told() -> None:
    host = Host()
    host.changes["writable"] = lambda _folder: False
    assert list(faults(host.examine())) == ["folder.cache", "folder.repository"]


def test_two_file_systems_cost_space_but_stop_nothing() -> None:
    host = Host()
    host.changes["can_link"] = lambda _origin, _destination: False
    checks = host.examine()
    assert checks["folder.links"].verdict is Verdict.WARN
    assert "one file system" in checks["folder.links"].advice
    assert faults(checks) == {}


def test_a_missing_signing_key_is_told_with_the_command_that_makes_it() -> None:
    def none(_signing: Signing) -> str:
        raise SignError("no secret key")

    host = Host()
    host.changes["signing_key"] = none
    assert faults(host.examine()) == {"key.signing": "backport keys init"}


def test_every_key_of_targets_and_site_is_checked() -> None:
    checked: list[str] = []

    def check(key: Key) -> None:
        checked.append(key.fingerprint)

    host = Host()
    host.changes["check_key"] = check
    site = Site(keys={"fedora-29": Key(fingerprint="B" * 40, file=Path("/lab/29.asc"))})
    checks = host.examine(site)
    assert {"key.fedora-28", "key.fedora-29"} <= set(checks)
    assert "B" * 40 in checked
    assert "5A03B4DD8254ECA02FDA1637A20AA56B429476B4" not in checked


@pytest.mark.parametrize(
    ("release", "advice"), [(FEDORA, "dnf install -y distribution-gpg-keys"), (DEBIAN, "correct `file`")]
)
def test_fedoras_missing_key_files_come_with_a_package(release: dict[str, str], advice: str) -> None:
    def missing(key: Key) -> None:
        raise HostError(f"the key is not at {key.file}", hint="correct `file`")

    host = Host(release)
    host.changes["check_key"] = missing
    file = Path("/usr/share/distribution-gpg-keys/fedora/none")
    keys = {"fedora-28": Key(fingerprint="B" * 40, file=file)}
    assert faults(host.examine(Site(keys=keys)))["key.fedora-28"] == advice


def test_a_hub_that_does_not_answer_is_no_fault_of_the_host() -> None:
    def silent(_source: Source) -> str:
        raise HostError("ConnectionError: refused")

    host = Host()
    host.changes["source_version"] = silent
    checks = host.examine()
    assert checks["hub"].verdict is Verdict.WARN
    assert faults(checks) == {}


def test_a_broken_target_is_told(tmp_path: Path) -> None:
    (tmp_path / "f28.toml").write_text("name = ")
    paths = Site().paths.model_copy(update={"targets": tmp_path})
    checks = Host().examine(Site(paths=paths))
    assert checks["target.f28"].verdict is Verdict.WARN
    assert "f28.toml" in checks["target.f28"].found
    assert not checks["target.f28"].stops


def test_without_the_bindings_what_needs_them_is_passed_over() -> None:
    def lacking(_argument: object) -> str:
        raise ImportError("No module named 'rpm'")

    host = Host()
    host.missing.add("rpm")
    host.changes |= {"which": lambda program: program, "check_key": lacking, "source_version": lacking}
    host.changes["mock_user"] = lambda: lacking(None)
    checks = host.examine()
    assert list(faults(checks)) == ["module.rpm"]
    assert checks["mock.user"].verdict is Verdict.SKIPPED
    assert checks["key.fedora-28"].verdict is Verdict.SKIPPED
    assert checks["hub"].verdict is Verdict.SKIPPED


def test_a_cache_that_others_can_write_to_is_told(tmp_path: Path) -> None:
    site = Site(paths=Paths(cache=tmp_path / "cache"))
    (tmp_path / "cache" / "built").mkdir(parents=True)
    (tmp_path / "cache" / "built").chmod(0o777)
    host = Host()
    host.changes = {"require_own": require_own}
    check = host.examine(site)["folder.cache.own"]
    assert check.verdict is Verdict.FAIL
    assert check.found.startswith(f"{tmp_path / 'cache' / 'built'}: others can write to it (mode 0777)")
    assert check.advice.startswith(f"chmod go-w {tmp_path / 'cache' / 'built'}")
    (tmp_path / "cache" / "built").chmod(0o755)
    assert host.examine(site)["folder.cache.own"].verdict is Verdict.PASS


def test_the_key_of_the_cache_is_looked_at_and_not_made(tmp_path: Path) -> None:
    site = Site(signing=Signing(gnupghome=tmp_path))
    host = Host()
    host.changes = {"open_sealer": open_sealer}
    check = host.examine(site)["key.cache"]
    assert (check.verdict, check.found) == (Verdict.PASS, f"{tmp_path / 'backport-cache-key'}: not made yet")
    assert not list(tmp_path.iterdir())
    open_sealer(site.signing.sealing_key)
    assert host.examine(site)["key.cache"].found == str(tmp_path / "backport-cache-key")
    site.signing.sealing_key.chmod(0o644)
    assert "others can read the key" in faults_found(host.examine(site)["key.cache"])


def faults_found(check: Check) -> str:
    """What a check that stops has found."""
    assert check.stops
    return check.found
