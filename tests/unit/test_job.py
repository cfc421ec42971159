import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backport import site as site_module
from backport.errors import UsageError
from backport.runs.job import BUILDING, Job, code_digest, load_job, settings_inputs, target_digest
from backport.site import ETC
from tests.unit.test_layers import LAYERS, MODULES, imports_of, part_of

ROOT = Path(__file__).resolve().parent.parent.parent


def site_file(folder: Path, text: str = "") -> Path:
    path = folder / "backport.toml"
    path.write_text(text)
    return path


def job(folder: Path, text: str = "") -> Job:
    return load_job("openssl", "f28", site_file(folder, text))


def inputs(folder: Path, text: str = "") -> dict[str, str]:
    return settings_inputs(job(folder, text), builder="chroot", signing_key="F" * 40)


def test_the_shipped_recipe_and_target_load(tmp_path: Path) -> None:
    loaded = job(tmp_path)
    assert loaded.source.wanted(loaded.recipe) == (
        "crypto-policies-20181026-1.gitd42aaa6.fc29",
        "openssl-1.1.1a-1.fc29",
    )
    assert [key.fingerprint for key in loaded.source_keys] == ["5A03B4DD8254ECA02FDA1637A20AA56B429476B4"]
    assert loaded.site.koji.hub == "https://koji.fedoraproject.org/kojihub"


def test_site_pins_mirrors_and_keys_replace_the_recipes_and_targets(tmp_path: Path) -> None:
    loaded = job(
        tmp_path,
        f"""
        [pins]
        openssl = "openssl-1.1.1w-1.fc29"
        [mirrors.f28]
        fedora = "http://mirror.example/f28"
        [keys.fedora-29]
        fingerprint = "{"AB" * 20}"
        file = "keys/29.asc"
        """,
    )
    assert loaded.recipe.packages["openssl"].nvr == "openssl-1.1.1w-1.fc29"
    assert loaded.target.repositories[0].baseurl == "http://mirror.example/f28"
    assert loaded.source_keys[0].file == tmp_path / "keys/29.asc"


def test_addresses_do_not_change_the_inputs(tmp_path: Path) -> None:
    assert inputs(tmp_path) == inputs(tmp_path, '[mirrors.f28]\nfedora = "http://mirror.example/f28"')


def test_patches_recipe_target_and_key_are_inputs(tmp_path: Path) -> None:
    found = inputs(tmp_path)
    assert "openssl patch openssl/f28-security-policy.patch" in found
    assert {"backport", "builder", "signing key", "target", "self-test", "openssl recipe"} <= set(found)
    pinned = inputs(tmp_path, '[pins]\nopenssl = "openssl-1.1.1w-1.fc29"')
    assert {name for name in found if found[name] != pinned[name]} == {"openssl recipe"}


def test_other_keys_of_the_source_alone_are_other_inputs(tmp_path: Path) -> None:
    other = job(tmp_path)
    source = other.recipe.source.model_copy(update={"keys": ("fedora-28",)})
    other = replace(other, recipe=other.recipe.model_copy(update={"source": source}))
    found, before = settings_inputs(other, builder="chroot", signing_key="F" * 40), inputs(tmp_path)
    assert {name for name in before if found[name] != before[name]} == {"source keys"}
    assert found["source keys"] == other.target.keys["fedora-28"].fingerprint


def test_another_key_is_another_target(tmp_path: Path) -> None:
    other = job(tmp_path, f'[keys.fedora-28]\nfingerprint = "{"AB" * 20}"\nfile = "k"')
    assert target_digest(other.target) != target_digest(job(tmp_path).target)


@pytest.mark.parametrize(
    ("recipe", "target", "text", "message"),
    [
        ("opnssl", "f28", "", r"unknown recipe 'opnssl' \(did you mean openssl\?\)"),
        ("openssl", "f82", "", r"unknown target 'f82' \(did you mean f28\?\)"),
        ("openssl", "f28", '[mirrors.f28]\nfedoro = "http://x/"', "no repository 'fedoro'.*fedora"),
        (
            "openssl",
            "f28",
            'bilder = "mock"',
            r"backport\.toml:1: bilder: unknown key \(did you mean builder\?\)",
        ),
        ("openssl", "f28", "[paths]\npatches = 'elsewhere'", "does not exist"),
        (
            "openssl",
            "f28",
            '[mirrors.f82]\nfedora = "http://x/"',
            r"backport\.toml:1: mirrors\.f82: there is no target 'f82' \(did you mean f28\?\)",
        ),
        (
            "openssl",
            "f28",
            '\n[mirrors.f28]\nupdates = "http://x/"\nfedroa = "http://x/"',
            r"backport\.toml:4: mirrors\.f28\.fedroa: no repository 'fedroa' \(did you mean fedora\?\)",
        ),
        (
            "openssl",
            "f28",
            '[pins]\nopnssl = "opnssl-1-1"',
            r"backport\.toml:2: pins\.opnssl: no recipe has a package 'opnssl' \(did you mean openssl\?\)",
        ),
        ("openssl", "f28", 'channel = "f28"', r"backport\.toml:1: channel: f28 is the name of a target"),
    ],
)
def test_what_is_unknown_is_told_with_the_nearest_known(
    tmp_path: Path, recipe: str, target: str, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_job(recipe, target, site_file(tmp_path, text))


def test_a_channel_of_the_command_line_is_not_the_site_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^channel: f28 is the name of a target"):
        load_job("openssl", "f28", site_file(tmp_path, 'channel = "testing"'), channel="f28")


def recipes(folder: Path, **changes: tuple[str, str]) -> Path:
    """A site whose only recipe is the shipped one with other text here and there."""
    text = (ROOT / "specs/openssl.toml").read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "recipes").mkdir()
    (folder / "recipes/openssl.toml").write_text(text)
    return site_file(folder, "[paths]\nrecipes = 'recipes'")


def test_a_source_key_that_nobody_configured_is_told_with_its_place(tmp_path: Path) -> None:
    site = recipes(tmp_path, keys=('keys = ["fedora-29"]', 'keys = ["fedora-92"]'))
    with pytest.raises(UsageError, match=r"recipes/openssl\.toml:\d+: source\.keys: no key 'fedora-92'"):
        load_job("openssl", "f28", site)


def test_without_a_target_it_is_the_recipes_only_one(tmp_path: Path) -> None:
    assert load_job("openssl", None, site_file(tmp_path)).target.name == "f28"


def test_of_several_targets_one_has_to_be_named(tmp_path: Path) -> None:
    site = recipes(tmp_path, targets=('targets = ["f28"]', 'targets = ["f28", "f27"]'))
    with pytest.raises(UsageError, match="several targets: f28, f27") as caught:
        load_job("openssl", None, site)
    assert "--target" in (caught.value.hint or "")


def test_the_lock_is_written_to_the_sites_own_folders_and_never_to_what_was_installed(tmp_path: Path) -> None:
    assert job(tmp_path).lock_file == ETC / "recipes" / "openssl.lock"
    assert job(tmp_path, "[paths]\nrecipes = 'own'").lock_file == tmp_path / "own" / "openssl.lock"
    assert job(tmp_path, "[paths]\nlocks = 'locks'").lock_file == tmp_path / "locks" / "openssl.lock"


def test_the_base_url_is_the_sites_or_the_folders_own(tmp_path: Path) -> None:
    assert job(tmp_path, "[paths]\nrepository = 'repo'").base_url == (tmp_path / "repo").as_uri()
    assert job(tmp_path, 'base_url = "https://repo.example"').base_url == "https://repo.example"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(site_module, "ETC", tmp_path / "etc")
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


def put(folder: Path, patch: str | None = "its own") -> None:
    """The shipped recipe in a folder of somebody's own, with a patch beside it."""
    for path, content in (
        (folder / "recipes/openssl.toml", (ROOT / "specs/openssl.toml").read_text()),
        (folder / "targets/f28.toml", (ROOT / "mock-configs/f28.toml").read_text()),
        (folder / "patches/openssl/f28-security-policy.patch", patch),
    ):
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


def test_the_sites_own_recipes_come_before_the_hosts_and_those_before_the_shipped(
    tmp_path: Path, etc: Path
) -> None:
    own = "[paths]\nrecipes = 'own/recipes'\ntargets = 'own/targets'"
    (tmp_path / "own").mkdir()
    for folder, patches in ((None, ROOT / "patches"), (etc, etc / "patches"), (tmp_path / "own", None)):
        if folder:
            put(folder)
        found = job(tmp_path, own)
        assert found.recipe.place("summary").startswith(str(folder or ROOT))
        assert found.target.place("name").startswith(str(folder or ROOT))
        assert found.patches == (patches or tmp_path / "own/patches")
    assert job(tmp_path).recipes == etc / "recipes"


def test_a_recipe_takes_no_patch_from_beside_another(tmp_path: Path, etc: Path) -> None:
    put(tmp_path / "own", patch=None)
    put(etc)
    with pytest.raises(UsageError, match=r"own/patches/openssl/f28-security-policy\.patch does not exist"):
        job(tmp_path, "[paths]\nrecipes = 'own/recipes'")


def test_a_setting_for_patches_is_that_of_the_recipes_beside_it(tmp_path: Path, etc: Path) -> None:
    put(tmp_path / "own")
    (tmp_path / "none").mkdir()
    assert job(tmp_path, "[paths]\npatches = 'own/patches'").patches == tmp_path / "own/patches"
    text = "[paths]\npatches = 'own/patches'\nrecipes = 'none'"
    assert job(tmp_path, text).patches == ROOT / "patches"


def test_all_places_are_known_where_a_name_is_not(tmp_path: Path, etc: Path) -> None:
    put(etc)
    (etc / "recipes/openssl.toml").rename(etc / "recipes/mine.toml")
    with pytest.raises(UsageError, match=r"did you mean mine\?") as caught:
        load_job("mien", None, site_file(tmp_path))
    assert {"mine", "openssl"} <= set((caught.value.hint or "").removeprefix("known: ").split(", "))


def test_a_lock_that_comes_with_a_recipe_is_in_force_until_the_site_has_its_own(
    tmp_path: Path, etc: Path
) -> None:
    put(etc)
    found = job(tmp_path, "[paths]\nlocks = 'locks'")
    assert found.lock_in_force == etc / "recipes/openssl.lock"
    found.lock_file.parent.mkdir()
    found.lock_file.touch()
    assert found.lock_in_force == tmp_path / "locks/openssl.lock"


def test_what_lies_beside_an_installed_package_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "specs").mkdir()
    monkeypatch.setattr(site_module, "files", lambda _name: tmp_path / "backport")
    assert site_module.Paths().search_path("recipes") == (ETC / "recipes",)
    (tmp_path / "backport/data/specs").mkdir(parents=True)
    assert site_module.Paths().search_path("recipes")[1] == tmp_path / "backport/data/specs"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the tool's code, which is the one that counts."""
    copy = Path(shutil.copytree(ROOT / "backport", tmp_path / "backport"))
    monkeypatch.setattr("backport.runs.job.resources.files", lambda _package: copy)
    code_digest.cache_clear()
    yield copy
    code_digest.cache_clear()


@pytest.mark.parametrize(
    ("file", "run", "build"),
    [
        ("builders/chroot.py", True, True),
        ("roots/dnf.py", True, True),
        ("templates/mock.cfg.j2", True, True),
        ("gates/abi.py", True, False),
        ("spec/edit.py", True, False),
        ("commands/runs.py", False, False),
        ("templates/index.html.j2", False, False),
        ("__init__.py", False, False),
    ],
)
def test_code_that_changes_results_changes_the_keys(code: Path, file: str, run: bool, build: bool) -> None:
    before = code_digest(), code_digest(BUILDING)
    code_digest.cache_clear()
    with (code / file).open("a") as stream:
        stream.write("\n# changed\n")
    after = code_digest(), code_digest(BUILDING)
    assert (before[0] != after[0], before[1] != after[1]) == (run, build)


def test_what_builders_import_is_code_of_theirs_or_below_the_stages() -> None:
    stages = {part for layer in LAYERS[: LAYERS.index([frozenset({"recipe", "target", "site", "settings"})])]
              for group in layer for part in group}  # fmt: skip
    ours = [path for path in MODULES if part_of(path) in ("builders", "roots")]
    found = {part for path in ours for _line, part in imports_of(path)} & stages
    # The others decide what is handed on, which is a part of the key: the package, the keys, the metadata.
    assert found - {"builders", "roots"} <= {"repodata", "srpm", "trust"}
