"""The site file: where it is looked for, what its paths mean, and what it may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from backport import site as site_module
from backport.errors import UsageError
from backport.recipe import Recipe
from backport.site import Site, apply_site, load_site
from backport.target import Target

FINGERPRINT = "A" * 40
OTHER = "B" * 40


@pytest.fixture(autouse=True)
def _no_site_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKPORT_CONFIG", raising=False)
    monkeypatch.setattr(site_module, "SITE_FILES", (Path("backport.toml"), tmp_path / "etc/backport.toml"))


def write(path: Path, packager: str, more: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'packager = "{packager} <x@example.org>"\n{more}')
    return path


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "summary": "Tiny",
            "targets": ["f28"],
            "source": {"tag": "f29", "keys": ["fedora-29"]},
            "packages": {"tiny": {"nvr": "tiny-1-1.fc29"}, "more": {"nvr": "more-1-1.fc29"}},
            "self_test": {"commands": [{"id": "runs", "run": ["tiny"]}]},
        }
    )


def target() -> Target:
    return Target.model_validate(
        {
            "name": "f28",
            "summary": "Fedora 28",
            "releasever": "28",
            "dist": ".fc28",
            "arch": "x86_64",
            "buildroot": ["bash"],
            "repositories": [
                {"id": name, "baseurl": f"https://own.example/{name}", "keys": ["fedora-28"]}
                for name in ("fedora", "updates")
            ],
            "keys": {
                name: {"fingerprint": FINGERPRINT, "file": f"/keys/{name}"}
                for name in ("fedora-28", "fedora-29")
            },
        }
    )


class TestLookUp:
    def test_without_any_file_the_defaults_are_fedoras(self) -> None:
        site = load_site(None)
        assert site == Site()
        assert site.koji.hub == "https://koji.fedoraproject.org/kojihub"
        assert site.builder == "auto"

    def test_the_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        named = write(tmp_path / "named.toml", "named")
        environment = write(tmp_path / "environment.toml", "environment")
        here = write(tmp_path / "backport.toml", "here")
        write(tmp_path / "etc/backport.toml", "etc")
        monkeypatch.setattr(site_module, "_from_environment", lambda: environment)
        assert load_site(named).packager.startswith("named")
        assert load_site(None).packager.startswith("environment")
        monkeypatch.setattr(site_module, "_from_environment", lambda: None)
        assert load_site(None).packager.startswith("here")
        here.unlink()
        assert load_site(None).packager.startswith("etc")

    def test_the_environment_is_read_when_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BACKPORT_CONFIG", str(write(tmp_path / "e.toml", "environment")))
        assert load_site(None).packager.startswith("environment")

    def test_a_named_file_must_exist(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "backport.toml", "here")
        with pytest.raises(UsageError, match=r"none\.toml: the site file cannot be read"):
            load_site(tmp_path / "none.toml")
        monkeypatch.setenv("BACKPORT_CONFIG", str(tmp_path / "gone.toml"))
        with pytest.raises(UsageError, match=r"gone\.toml"):
            load_site(None)


def test_relative_paths_are_taken_from_the_site_files_folder(tmp_path: Path) -> None:
    file = write(
        tmp_path / "sub/site.toml",
        "x",
        f"""
        [paths]
        cache = "cache"
        repository = "/srv/elsewhere"
        [signing]
        gnupghome = "gnupg"
        [keys.lab]
        fingerprint = "{FINGERPRINT}"
        file = "keys/lab.asc"
        """,
    )
    site = load_site(file)
    assert site.paths.cache == tmp_path / "sub/cache"
    assert site.paths.repository == Path("/srv/elsewhere")
    assert site.paths.recipes is None
    assert site.signing.gnupghome == tmp_path / "sub/gnupg"
    assert site.signing.passphrase_file is None
    assert site.keys["lab"].file == tmp_path / "sub/keys/lab.asc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[koji]\nhbu = "http://x/"', "koji.hbu: unknown key (did you mean hub?)"),
        ("[koji]\ntimeout = 0", "koji.timeout: must be more than 0"),
        ('[signing]\nkey = "12345678"', "signing.key: a fingerprint has 40 hexadecimal digits"),
        ('[pins]\nopenssl = "openssl"', "pins.openssl: 'openssl' is not a name-version-release"),
        ('[pins]\ntiny = "more-1-1.fc29"', "pins: tiny: more-1-1.fc29 is a build of another package"),
        ('[mirrors.f28]\nfedora = "x"', "mirrors.f28.fedora: 'x' is no URL"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_site(write(tmp_path / "site.toml", "x", text))
    assert message in caught.value.message


class TestApply:
    def test_a_bare_site_changes_nothing(self) -> None:
        assert apply_site(recipe(), target(), Site()) == (recipe(), target())

    def test_pins_replace_builds(self) -> None:
        changed, _ = apply_site(recipe(), target(), Site(pins={"tiny": "tiny-2-1.fc29"}))
        assert changed.packages["tiny"].nvr == "tiny-2-1.fc29"
        assert changed.packages["more"].nvr == "more-1-1.fc29"

    def test_mirrors_replace_addresses(self) -> None:
        site = Site(mirrors={"f28": {"updates": "http://m.example/u"}, "f27": {"x": "http://m.example/x"}})
        _, changed = apply_site(recipe(), target(), site)
        assert [repository.baseurl for repository in changed.repositories] == [
            "https://own.example/fedora",
            "http://m.example/u",
        ]

    def test_keys_replace_and_add(self) -> None:
        site = Site.model_validate(
            {
                "keys": {
                    "fedora-29": {"fingerprint": OTHER, "file": "/lab/29"},
                    "lab": {"fingerprint": OTHER, "file": "/l"},
                }
            }
        )
        _, changed = apply_site(recipe(), target(), site)
        assert changed.keys["fedora-29"].fingerprint == OTHER
        assert changed.keys["fedora-28"].fingerprint == FINGERPRINT
        assert set(changed.keys) == {"fedora-28", "fedora-29", "lab"}

    def test_a_mirror_of_no_repository_is_refused(self) -> None:
        site = Site(mirrors={"f28": {"update": "http://m.example/u"}})
        with pytest.raises(
            UsageError, match=r"mirrors\.f28\.update: no repository 'update' \(did you mean updates\?\)"
        ):
            apply_site(recipe(), target(), site)

    def test_a_key_that_nobody_configured_is_refused(self) -> None:
        source = recipe().source.model_copy(update={"keys": ("fedora-30",)})
        with pytest.raises(UsageError, match=r"no key 'fedora-30' \(did you mean fedora-2") as caught:
            apply_site(recipe().model_copy(update={"source": source}), target(), Site())
        assert "[keys.fedora-30]" in (caught.value.hint or "")
