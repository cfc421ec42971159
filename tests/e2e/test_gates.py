"""Every gate with real parts: rpmbuild's packages, libsolv, abipkgdiff, dnf in roots; passed and missed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backport import gates
from backport.artifacts import Check, Verdict
from backport.errors import HostError, PublishError
from backport.gates import abi
from backport.gates.abi import examine_abi
from backport.gates.contents import examine_files
from backport.gates.dependencies import examine_dependencies
from backport.gates.roots import examine_roots
from backport.gates.signed import examine_signatures
from backport.gates.subject import Subject
from backport.gates.upgrade_path import examine_upgrade_paths
from backport.progress import Silent
from backport.recipe import Gates, Recipe, load_recipe
from backport.repository.channel import Channel, load_channel
from backport.repository.place import Place
from backport.repository.publish import Run, publish
from backport.roots.root import clean_root
from backport.run import Command
from backport.signing import sign
from backport.site import Signing
from backport.target import Target
from tests.e2e import handmade, tiny
from tests.e2e.candidates import describe
from tests.e2e.handmade import Ware

RECIPES = Path(__file__).parents[1] / "data" / "greeting" / "specs"
STOCK = "1.fc28"
LIBRARY = "/usr/lib64/libwave.so.1"
HEADER = "int wave(void) { return 1; }\n"
LEAVE = "int leave(void) { return 2; }\n"
MAIN = "int leave(void);\nint main(void) { return leave() - 2; }\n"

Compiled = Mapping[str, bytes]
Verdicts = dict[str, Verdict]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What the tests share: compiled parts, keys, the target with packages to be replaced."""

    target: Target
    compiled: Compiled
    signing: Signing
    cache: Path

    def subject(self, folder: Path, *wares: Ware, gates: Gates | None = None, **facts: object) -> Subject:
        """A candidate repository of these packages, as a run makes it."""
        made = handmade.signed(wares, signing=self.signing, target=self.target, folder=folder / "candidate")
        repository = folder / "repository"
        repository.mkdir()
        for rpm in made.rpms:
            shutil.copy(rpm.path, repository)
        describe(repository, signing=self.signing)
        (folder / "gates").mkdir()
        subject = Subject(
            signed=made, candidate=repository, accepted=frozenset(rpm.sha256 for rpm in made.rpms),
            target=self.target, gates=gates or Gates(), install=(), published=None, cache=self.cache,
            workspace=folder / "gates", progress=Silent(),
        )  # fmt: skip
        return replace(subject, **facts)  # type: ignore[arg-type]  # the tests' own keywords

    def publish(self, folder: Path, *wares: Ware) -> Channel:
        """A channel with these packages, as a run of another recipe has published them."""
        made = handmade.signed(wares, signing=self.signing, target=self.target, folder=folder / "published")
        repository = folder / "repo"
        place = Place(
            repository=repository, target=self.target, base_url="http://repo.example.org",
            signing=self.signing,
        )  # fmt: skip
        publish(Run(gated=tiny.gated(tiny.tested(made))), place, prove=tiny.proven)
        channel = load_channel(repository, self.target, signing=self.signing, keys=folder / "keys")
        assert channel is not None
        return channel

    def libwave(self, part: str = "wave", **changes: object) -> Ware:
        """The library's update, with one of the compiled libraries in it."""
        ware = Ware(name="libwave", version="1.1", files={LIBRARY: self.compiled[part]})
        return replace(ware, **changes)  # type: ignore[arg-type]  # the tests' own keywords


@pytest.fixture(scope="module")
def compiled(f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A library in several states and a program that needs it, by the target's own compiler."""
    sources = {
        "wave": ("1", HEADER + LEAVE),
        "more": ("1", HEADER + LEAVE + "int stay(void) { return 3; }\n"),
        "less": ("1", HEADER),
        "next": ("2", HEADER + LEAVE),
        "third": ("3", HEADER),
        "fourth": ("4", HEADER),
    }
    workspace = tmp_path_factory.mktemp("compiled")
    with clean_root(f28, cache=root_cache, workspace=workspace) as root:

        def compile_c(name: str, text: str, *options: str) -> None:
            argv = ["gcc", "-o", f"/builddir/{name}", "-xc", "-", *options]
            root.run(Command(argv, timeout=60, stdin=text.encode(), cwd="/builddir"))

        for name, (number, text) in sources.items():
            compile_c(name, text, "-shared", "-fPIC", f"-Wl,-soname,libwave.so.{number}")
        compile_c("program", MAIN, "-xnone", "/builddir/wave", "-Wl,-z,lazy")
        return {name: root.locate(f"/builddir/{name}").read_bytes() for name in (*sources, "program")}


@pytest.fixture(scope="module")
def workshop(
    f28: Target, root_cache: Path, compiled: Compiled, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("stock", "site"):
        sign.init_key(Signing(gnupghome=folder / name), f"{name} <{name}@example.org>")
    stock = [
        Ware(name="libwave", release=STOCK, files={LIBRARY: compiled["wave"]}),
        Ware(name="waver", release=STOCK, files={"/usr/bin/waver": compiled["program"]}),
        Ware(
            name="wave-tools",
            release=STOCK,
            files={"/usr/bin/wave-up": b"up", "/usr/bin/wave-down": b"down", "/usr/share/wave/text": b"text"},
            marks={"/usr/bin/wave-up": "%attr(4755, root, root)"},
        ),
    ]
    target = handmade.with_stock(f28, stock, signing=Signing(gnupghome=folder / "stock"), folder=folder)
    return Workshop(
        target=target, compiled=compiled, signing=Signing(gnupghome=folder / "site"), cache=root_cache
    )


def ask(examination: Callable[[Subject], Iterator[Check]], subject: Subject) -> dict[str, Check]:
    return {check.id: check for check in examination(subject)}


def verdicts(checks: dict[str, Check]) -> Verdicts:
    return {name: check.verdict for name, check in checks.items()}


# Signatures and metadata


def signatures(subject: Subject) -> Check:
    return ask(examine_signatures, subject)["gate.signed"]


def test_a_repository_as_a_run_makes_it_is_signed(workshop: Workshop, tmp_path: Path) -> None:
    check = signatures(workshop.subject(tmp_path, workshop.libwave()))
    assert (check.verdict, check.found) == (Verdict.PASS, "1 packages are, and repomd.xml")


def test_an_unsigned_package_is_found_by_the_targets_own_rpmkeys(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave())
    unsigned = subject.signed.built[0].rpms[0]
    shutil.copy(unsigned.path, subject.candidate)
    describe(subject.candidate, signing=workshop.signing)
    check = signatures(subject)
    assert check.verdict is Verdict.FAIL
    assert "the rpm of f28 does not accept its signature" in check.evidence


def test_a_file_that_the_metadata_does_not_name_is_found(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave())
    name = subject.signed.rpms[0].path.name
    shutil.copy(subject.candidate / name, subject.candidate / f"other-{name}")
    check = signatures(subject)
    assert (check.verdict, check.found) == (Verdict.FAIL, f"other-{name}: is not in the metadata")


def test_a_package_that_the_metadata_names_must_be_there(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave())
    (subject.candidate / subject.signed.rpms[0].path.name).unlink()
    assert "is missing" in signatures(subject).found


def test_metadata_changed_after_it_was_signed_is_found(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave())
    with (subject.candidate / "repodata" / "repomd.xml").open("a") as stream:
        stream.write("\n")
    assert signatures(subject).verdict is Verdict.FAIL


# Versions


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"version": "0.9"}, "the target has libwave-1.0-1.fc28.x86_64"),
        ({"version": "1.0", "release": "1.fc28"}, "the target has libwave-1.0-1.fc28.x86_64"),
        ({"release": "2.fc28.bp1"}, "it is not below libwave-1.1-1.fc29.x86_64, from which it came"),
        ({"release": "1.fc29"}, "it is not below libwave-1.1-1.fc29.x86_64, from which it came"),
    ],
    ids=["between", "too low", "the same", "too high", "the release it came from"],
)
def test_the_version_lies_between_the_targets_and_the_newer_releases(
    workshop: Workshop, tmp_path: Path, changes: dict[str, str], problem: str | None
) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave(**changes))
    check = ask(examine_upgrade_paths, subject)["gate.upgrade-path.libwave"]
    assert check.verdict is (Verdict.FAIL if problem else Verdict.PASS)
    assert check.found == (problem or "libwave-1.1-1.fc28.bp1.x86_64")


def test_what_is_published_already_is_never_above(workshop: Workshop, tmp_path: Path) -> None:
    published = workshop.publish(tmp_path, workshop.libwave(release="1.fc28.bp10"))
    for release, verdict in (("1.fc28.bp9", Verdict.FAIL), ("1.fc28.bp11", Verdict.PASS)):
        ware = workshop.libwave(release=release)
        subject = workshop.subject(tmp_path / release, ware, published=published)
        check = ask(examine_upgrade_paths, subject)["gate.upgrade-path.libwave"]
        assert check.verdict is verdict
        assert "published: libwave-1.1-1.fc28.bp10.x86_64" in check.evidence


# Requirements


def test_a_requirement_that_nothing_provides_is_found(workshop: Workshop, tmp_path: Path) -> None:
    ware = workshop.libwave(relations=["Requires: libtide >= 2", "Requires(pre): tidal", "Requires: waver"])
    checks = ask(examine_dependencies, workshop.subject(tmp_path, ware))
    assert checks["gate.installable.closure"].verdict is Verdict.FAIL
    assert checks["gate.installable.closure"].found.split("; ") == [
        "libwave-1.1-1.fc28.bp1.x86_64 requires libtide >= 2",
        "libwave-1.1-1.fc28.bp1.x86_64 requires tidal",
    ]


def test_those_who_need_the_replaced_library_are_counted(workshop: Workshop, tmp_path: Path) -> None:
    checks = ask(examine_dependencies, workshop.subject(tmp_path, workshop.libwave()))
    assert verdicts(checks) == {"gate.installable.closure": Verdict.PASS, "gate.consumers": Verdict.PASS}
    assert checks["gate.consumers"].evidence == "waver-1.0-1.fc28.x86_64"


def test_a_consumer_without_its_library_is_found(workshop: Workshop, tmp_path: Path) -> None:
    ware = workshop.libwave("next", files={"/usr/lib64/libwave.so.2": workshop.compiled["next"]})
    check = ask(examine_dependencies, workshop.subject(tmp_path, ware))["gate.consumers"]
    assert check.verdict is Verdict.FAIL
    assert check.found == "waver-1.0-1.fc28.x86_64 requires libwave.so.1()(64bit)"


def test_what_the_candidate_obsoletes_is_missed_by_its_consumers(workshop: Workshop, tmp_path: Path) -> None:
    ware = Ware(name="newwave", relations=["Obsoletes: libwave < 2"])
    assert (
        ask(examine_dependencies, workshop.subject(tmp_path, ware))["gate.consumers"].verdict is Verdict.FAIL
    )


# Files


def test_files_of_ones_own_are_in_nobodys_way(workshop: Workshop, tmp_path: Path) -> None:
    ware = Ware(name="newwave", files={"/usr/bin/newwave": b"new", "/usr/share/wave/text": b"text"})
    checks = ask(examine_files, workshop.subject(tmp_path, ware, workshop.libwave()))
    assert set(verdicts(checks).values()) == {Verdict.PASS}
    assert checks["gate.files.conflicts"].found == "3 files, 1 of them shared"


def test_another_packages_file_with_other_content_is_a_conflict(workshop: Workshop, tmp_path: Path) -> None:
    ware = Ware(name="newwave", files={"/usr/bin/wave-down": b"other"})
    check = ask(examine_files, workshop.subject(tmp_path, ware))["gate.files.conflicts"]
    assert check.verdict is Verdict.FAIL
    assert check.found == (
        "/usr/bin/wave-down: newwave-1.0-1.fc28.bp1.x86_64 and wave-tools-1.0-1.fc28.x86_64"
    )


def test_a_file_may_move_between_packages_that_are_both_updated(workshop: Workshop, tmp_path: Path) -> None:
    wares = [
        Ware(name="newwave", files={"/usr/bin/wave-down": b"other"}),
        Ware(name="wave-tools", version="1.1"),
    ]
    assert set(verdicts(ask(examine_files, workshop.subject(tmp_path, *wares))).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("path", "mark", "problem"),
    [
        ("/usr/bin/wave-up", "%attr(4755, root, root)", None),
        ("/usr/bin/wave-down", "%attr(4755, root, root)", "set-user-id root"),
        ("/usr/bin/wave-up", "%attr(6755, root, mail)", "set-group-id mail"),
        ("/usr/bin/wave-down", "%attr(0666, root, root)", "writable by all"),
        ("/usr/bin/wave-down", "%caps(cap_net_raw=ep)", "capabilities"),
    ],
)
def test_no_file_gives_rights_that_the_targets_does_not_give(
    workshop: Workshop, tmp_path: Path, path: str, mark: str, problem: str | None
) -> None:
    ware = Ware(name="wave-tools", version="1.1", files={path: b"up"}, marks={path: mark})
    check = ask(examine_files, workshop.subject(tmp_path, ware))["gate.files.privileges"]
    assert check.verdict is (Verdict.FAIL if problem else Verdict.PASS)
    assert (problem or "all as in the packages before") in check.found


# Libraries


def library_check(workshop: Workshop, folder: Path, part: str, **changes: object) -> Check:
    subject = workshop.subject(folder, workshop.libwave(part, **changes))
    return ask(examine_abi, subject)["gate.abi.libwave"]


def test_the_same_library_keeps_its_abi(workshop: Workshop, tmp_path: Path) -> None:
    check = library_check(workshop, tmp_path, "wave")
    assert (check.verdict, check.found) == (Verdict.PASS, "all of it, unchanged")
    assert check.expected.endswith("by symbols alone")


def test_added_symbols_are_listed(workshop: Workshop, tmp_path: Path) -> None:
    check = library_check(workshop, tmp_path, "more")
    assert (check.verdict, check.found) == (Verdict.PASS, "all of it, and more")
    assert "stay" in check.evidence


def test_a_removed_symbol_fails(workshop: Workshop, tmp_path: Path) -> None:
    check = library_check(workshop, tmp_path, "less")
    assert check.verdict is Verdict.FAIL
    assert "leave" in check.evidence


def test_another_soname_fails(workshop: Workshop, tmp_path: Path) -> None:
    files = {"/usr/lib64/libwave.so.2": workshop.compiled["next"]}
    check = library_check(workshop, tmp_path, "next", files=files)
    assert check.verdict is Verdict.FAIL
    assert check.found.startswith("libwave.so.1 is gone")


def test_a_package_that_cannot_be_compared_is_an_error(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave())
    assert subject.replaced, "what is read before is read from the whole package"
    subject.packages[0].path.write_bytes(b"no package")
    assert ask(examine_abi, subject)["gate.abi.libwave"].verdict is Verdict.ERROR


def test_where_no_library_is_replaced_there_is_nothing_to_compare(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, Ware(name="newwave"))
    assert verdicts(ask(examine_abi, subject)) == {"gate.abi": Verdict.SKIPPED}


def test_a_host_without_abipkgdiff_is_told(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "PROGRAM", "abipkgdiff-that-is-not-there")
    subject = workshop.subject(tmp_path, workshop.libwave())
    with pytest.raises(HostError, match="is not installed on this host"):
        ask(examine_abi, subject)


# Roots


def test_a_good_candidate_passes_every_gate(workshop: Workshop, tmp_path: Path) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave("more"))
    recipe = greeting(gates=Gates(consumers={"waver": ("waver",)}))
    tested = tiny.tested(subject.signed)
    checks = gates.examine(
        tested, recipe, workshop.target, candidate=subject.candidate,
        accepted=subject.accepted, cache=workshop.cache, workspace=subject.workspace, progress=Silent(),
    )  # fmt: skip
    assert {check.id: check.verdict for check in checks} == dict.fromkeys(
        (
            "gate.signed", "gate.upgrade-path.libwave", "gate.installable.closure", "gate.consumers",
            "gate.files.conflicts", "gate.files.privileges", "gate.abi.libwave", "gate.installable.update",
            "gate.consumers.waver", "gate.installable.downgrade", "gate.installable.fresh",
        ),
        Verdict.PASS,
    )  # fmt: skip
    assert gates.passed(tested, checks).tested == tested


def test_neither_update_nor_installation_without_what_is_required(workshop: Workshop, tmp_path: Path) -> None:
    ware = workshop.libwave(relations=["Requires: libtide >= 2"])
    checks = ask(examine_roots, workshop.subject(tmp_path, ware))
    assert verdicts(checks) == {
        "gate.installable.update": Verdict.FAIL,
        "gate.installable.downgrade": Verdict.SKIPPED,
        "gate.installable.fresh": Verdict.FAIL,
    }
    assert "libtide" in checks["gate.installable.update"].evidence


@pytest.mark.parametrize(
    ("scriptlet", "found"),
    [
        (("%post", "exit 3"), "POSTIN"),
        (("%posttrans", "echo no newline; kill -9 $$"), "POSTTRANS"),
        (("%post -p <lua>", "error('lua')"), "POSTIN"),
        (("%post", "echo 'Error in POSTIN scriptlet in rpm package another'"), ""),
    ],
    ids=["exit code", "killed", "lua", "only said"],
)
def test_a_scriptlet_that_fails_although_dnf_goes_on(
    workshop: Workshop, tmp_path: Path, scriptlet: tuple[str, ...], found: str
) -> None:
    checks = ask(examine_roots, workshop.subject(tmp_path, workshop.libwave(relations=scriptlet)))
    for name in ("gate.installable.update", "gate.installable.fresh"):
        assert checks[name].verdict is (Verdict.FAIL if found else Verdict.PASS)
        assert not found or f"{found} scriptlet in rpm package libwave" in checks[name].found


def test_what_is_in_the_way_back_and_who_does_not_start(workshop: Workshop, tmp_path: Path) -> None:
    same = "1.1-1.fc28.bp1"
    wares = [
        workshop.libwave("less", relations=[f"Requires: libwave-data = {same}"]),
        Ware(name="libwave-data", version="1.1", relations=[f"Requires: libwave = {same}"]),
    ]
    consumers = Gates(consumers={"waver": ("waver",), "wave-tools": ("/usr/bin/wave-down",)})
    checks = ask(examine_roots, workshop.subject(tmp_path, *wares, gates=consumers))
    assert verdicts(checks) == {
        "gate.installable.update": Verdict.PASS,
        "gate.consumers.waver": Verdict.FAIL,
        "gate.consumers.wave-tools": Verdict.ERROR,
        "gate.installable.downgrade": Verdict.FAIL,
        "gate.installable.fresh": Verdict.PASS,
    }
    assert "undefined symbol: leave" in checks["gate.consumers.waver"].found
    assert "on the packages before either" in checks["gate.consumers.wave-tools"].found


# What is published already


NEWCAT = Ware(
    name="newcat",
    relations=["Requires: libwave.so.3()(64bit)"],
    files={"/usr/bin/newcat": b"cat", "/usr/bin/newcat-admin": b"admin"},
    marks={"/usr/bin/newcat-admin": "%attr(4755, root, root)"},
)


@pytest.fixture(scope="module")
def published(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Channel:
    """A channel of other recipes: a library that the target has not, its consumer, and a newer libwave."""
    return workshop.publish(
        tmp_path_factory.mktemp("channel"),
        Ware(name="libnew", files={"/usr/lib64/libnew.so.3": workshop.compiled["third"]}),
        NEWCAT,
        workshop.libwave("more"),
    )


def newer_libnew(workshop: Workshop) -> Ware:
    return Ware(name="libnew", version="2.0", files={"/usr/lib64/libnew.so.4": workshop.compiled["fourth"]})


def test_a_published_consumer_without_its_library_is_found(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    subject = workshop.subject(tmp_path, newer_libnew(workshop), published=published)
    check = ask(examine_dependencies, subject)["gate.consumers"]
    assert check.verdict is Verdict.FAIL
    assert check.found == "newcat-1.0-1.fc28.bp1.x86_64 requires libwave.so.3()(64bit)"


def test_a_published_library_is_compared_beside_the_targets(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    wares = [newer_libnew(workshop), workshop.libwave("wave", version="1.2")]
    checks = ask(examine_abi, workshop.subject(tmp_path, *wares, published=published))
    assert verdicts(checks) == {
        "gate.abi.libnew.published": Verdict.FAIL,
        "gate.abi.libwave": Verdict.PASS,
        "gate.abi.libwave.published": Verdict.FAIL,
    }
    assert checks["gate.abi.libnew.published"].found.startswith("libwave.so.3 is gone")
    assert "stay" in checks["gate.abi.libwave.published"].evidence


def test_a_published_packages_file_is_in_the_way(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    ware = Ware(name="newdog", files={"/usr/bin/newcat": b"dog"})
    check = ask(examine_files, workshop.subject(tmp_path, ware, published=published))["gate.files.conflicts"]
    assert check.verdict is Verdict.FAIL
    assert check.found == "/usr/bin/newcat: newdog-1.0-1.fc28.bp1.x86_64 and newcat-1.0-1.fc28.bp1.x86_64"


def test_rights_that_a_published_package_gives_are_nothing_new(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    path = "/usr/bin/newcat-admin"
    ware = Ware(name="newcat", version="2", files={path: b"x"}, marks={path: "%attr(4755, root, root)"})
    for number, channel in enumerate((published, None)):
        subject = workshop.subject(tmp_path / str(number), ware, published=channel)
        check = ask(examine_files, subject)["gate.files.privileges"]
        assert check.verdict is (Verdict.FAIL if channel is None else Verdict.PASS)


def test_what_the_candidate_publishes_again_is_held_against_what_was_before_it(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    subject = workshop.subject(tmp_path, workshop.libwave("more"), published=published)
    assert [one.str() for one in subject.replaced] == ["libwave-1.0-1.fc28.x86_64"]
    assert verdicts(ask(examine_abi, subject)) == {"gate.abi.libwave": Verdict.PASS}
    assert verdicts(ask(examine_upgrade_paths, subject)) == {"gate.upgrade-path.libwave": Verdict.PASS}


def test_a_server_that_has_what_is_published_updates_and_goes_back_to_that(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    """The candidate needs what another recipe published, and has one package that is published already."""
    ware = workshop.libwave("more", version="1.2", relations=["Requires: libnew"])
    subject = workshop.subject(tmp_path, ware, NEWCAT, published=published)
    assert [one.str() for one in subject.replaced] == ["libwave-1.1-1.fc28.bp1.x86_64"]
    assert ask(examine_dependencies, subject)["gate.installable.closure"].verdict is Verdict.PASS
    checks = ask(examine_roots, subject)
    assert set(verdicts(checks).values()) == {Verdict.PASS}, checks
    assert "libwave-1.1-1.fc28.bp1.x86_64" in checks["gate.installable.downgrade"].evidence


def test_a_channel_that_is_signed_by_another_is_refused(
    workshop: Workshop, published: Channel, tmp_path: Path
) -> None:
    other = Signing(gnupghome=workshop.signing.gnupghome.parent / "stock")
    place = published.folder.parents[3]
    with pytest.raises(PublishError, match="which is no key of"):
        load_channel(place, workshop.target, signing=other, keys=tmp_path)
    assert load_channel(place, workshop.target, signing=other, keys=None) is not None
    record = published.folder.parent / "generation.json"
    text = record.read_text()
    record.chmod(0o644)
    record.write_text(text.replace('"run": ""', '"run": "x"'))
    try:
        with pytest.raises(PublishError, match="is not a good one"):
            load_channel(place, workshop.target, signing=workshop.signing, keys=tmp_path)
    finally:
        record.write_text(text)


# What a recipe makes of it


def greeting(**tables: object) -> Recipe:
    return load_recipe(RECIPES, "hello").model_copy(update=tables)


def test_a_repository_that_cannot_be_read_is_an_error_of_every_gate_that_needs_it(
    workshop: Workshop, tmp_path: Path
) -> None:
    subject = workshop.subject(tmp_path, Ware(name="newwave"))
    gone = workshop.target.repositories[-1].model_copy(update={"baseurl": (tmp_path / "gone").as_uri()})
    tested = tiny.tested(subject.signed)
    checks = gates.examine(
        tested, greeting(gates=Gates(warn={"files": "known to be so"})),
        workshop.target.model_copy(update={"repositories": (*workshop.target.repositories[:-1], gone)}),
        candidate=subject.candidate, accepted=subject.accepted, cache=workshop.cache,
        workspace=subject.workspace, progress=Silent(),
    )  # fmt: skip
    found = {check.id: check.verdict for check in checks}
    assert found == {
        "gate.signed": Verdict.PASS,
        "gate.upgrade-path": Verdict.ERROR,
        "gate.consumers": Verdict.ERROR,
        "gate.files": Verdict.WARN,
        "gate.abi": Verdict.ERROR,
        "gate.installable": Verdict.ERROR,
    }
    with pytest.raises(PublishError, match=r"^not published: gate\.upgrade-path"):
        gates.passed(tested, checks)
