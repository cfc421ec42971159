"""Recipes: what they may say, and what is refused before anything else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from backport.artifacts import BuildOptions
from backport.errors import UsageError
from backport.recipe import Patch, Recipe, find_settings, load_recipe

ROOT = Path(__file__).parents[2]
WHOLE = """
summary = "Tiny"
targets = ["f28"]

[source]
tag = "f29-updates"
keys = ["fedora-29"]

[packages.tiny]
nvr = "tiny-1.0-1.fc29"
patches = ["tiny/one.patch", { file = "tiny/two.patch", strip = 0 }]

[[packages.tiny.edits]]
action = "insert_after"
anchor = "%prep"
text = "true"

[packages.tiny.build]
with = ["docs"]
without = ["tests"]
macros = { _smp_build_ncpus = "1" }
check = false

[self_test]
install = ["tiny"]

[[self_test.commands]]
id = "tiny-runs"
run = ["tiny"]
"""


def load_text(folder: Path, text: str) -> Recipe:
    (folder / "tiny.toml").write_text(text)
    return load_recipe(folder, "tiny")


def test_loads_a_whole_recipe(tmp_path: Path) -> None:
    package = load_text(tmp_path, WHOLE).packages["tiny"]
    assert package.patches == (Patch(file="tiny/one.patch"), Patch(file="tiny/two.patch", strip=0))
    assert package.bump == 1
    assert package.edits[0].anchor == "%prep"
    assert package.build.options() == BuildOptions(
        with_=("docs",), without=("tests",), macros={"_smp_build_ncpus": "1"}, check=False
    )


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_load_and_their_patches_exist(path: Path) -> None:
    recipe = load_recipe(path.parent, path.stem)
    for package in recipe.packages.values():
        for patch in package.patches:
            assert (ROOT / "patches" / patch.file).is_file()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("tiny-1.0-1.fc29", "tiny", "tiny.toml:10: packages.tiny.nvr: 'tiny' is not a name-version-release"),
        ("tiny-1.0-1.fc29", "other-1.0-1.fc29", "packages.tiny.nvr: other-1.0-1.fc29 is a build of another"),
        ("tiny-1.0-1.fc29", "tiny-1.0-1/../x", "is not a name-version-release"),
        ("tiny/one.patch", "../one.patch", "must be a path inside the patches folder"),
        ("tiny/one.patch", "/etc/passwd", "must be a path inside the patches folder"),
        ("strip = 0", "strip = 10", "strip: must be at most 9"),
        ("strip = 0", "stripp = 0", "unknown key (did you mean strip?)"),
        ("insert_after", "prepend", "'insert_before', 'insert_after', 'replace' or 'delete'"),
        ("insert_after", "delete", "every action but delete needs a text"),
        ('text = "true"', 'text = ""', "every action but delete needs a text"),
        ('anchor = "%prep"', 'anchor = ""', "anchor: must have 1 or more characters"),
        ('with = ["docs"]', 'with = ["--define"]', "is no name"),
        ("_smp_build_ncpus", "1x", "does not have the form"),
        ("check = false", "timeout = 0", "must be at least 1"),
        ("check = false", 'undefine = ["x; reboot"]', "does not have the form"),
        (
            "check = false",
            'undefine = ["_smp_build_ncpus"]',
            "macros and undefine both name _smp_build_ncpus",
        ),
        ("check = false", "bump = 2", "unknown key"),
        ('[[self_test.commands]]\nid = "tiny-runs"\nrun = ["tiny"]', "", "nothing untested is published"),
        ("tiny-runs", "Tiny runs", "does not have the form"),
        ('run = ["tiny"]', 'run = ["tiny"]\noutput = "("', "not a regular expression"),
        ('run = ["tiny"]', "run = []", "must have 1 or more entries"),
        ('keys = ["fedora-29"]', "keys = []", "must have 1 or more entries"),
        ('targets = ["f28"]', "targets = []", "must have 1 or more entries"),
        ('summary = "Tiny"', "", "summary: this key is required"),
    ],
)
def test_refuses(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in WHOLE
    with pytest.raises(UsageError) as caught:
        load_text(tmp_path, WHOLE.replace(before, after, 1))
    assert message in caught.value.message
    assert str(tmp_path / "tiny.toml") in caught.value.message


def test_an_unknown_recipe_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "openssl.toml").touch()
    (tmp_path / "exim.toml").touch()
    with pytest.raises(UsageError, match=r"unknown recipe 'opensl' \(did you mean openssl\?\)") as caught:
        find_settings((tmp_path,), "opensl", what="recipe")
    assert caught.value.hint == "known: exim, openssl"


@pytest.mark.parametrize("name", ["../openssl", "openssl.toml", "/openssl", ""])
def test_a_path_is_no_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "openssl.toml").touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="unknown recipe"):
        find_settings((tmp_path / "sub",), name, what="recipe")


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_settings((tmp_path,), "openssl", what="recipe")
    assert str(tmp_path) in str(caught.value.hint)


@pytest.mark.parametrize("pattern", ["[[a]", "a**", "(?P<a", "(" * 500, "a{4294967296}"])
def test_a_regular_expression_that_may_mean_something_else_is_refused(tmp_path: Path, pattern: str) -> None:
    command = f'id = "a"\nrun = ["/bin/a"]\noutput = \'{pattern}\'\n'
    path = tmp_path / "x.toml"
    path.write_text(
        'summary = "x"\ntargets = ["f28"]\n[source]\ntag = "f29"\nkeys = ["k"]\n'
        f'[packages.x]\nnvr = "x-1-1"\n[[self_test.commands]]\n{command}'
    )
    with pytest.raises(
        UsageError, match=r"x\.toml:\d+: self_test\.commands\.0\.output: not a regular expression"
    ):
        load_recipe(tmp_path, "x")


def test_a_recipe_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (tmp_path / "outside.toml").write_text("")
    (recipes / "x.toml").symlink_to("../outside.toml")
    (recipes / "loop.toml").symlink_to("loop.toml")
    for name, reason in (("x", "leads out of its folder"), ("loop", "cannot be read")):
        with pytest.raises(UsageError, match=reason):
            load_recipe(recipes, name)
    (recipes / "\x1b[31m.toml").write_text("")
    with pytest.raises(UsageError, match="unknown recipe") as caught:
        load_recipe(recipes, "y")
    assert "\x1b" not in f"{caught.value}{caught.value.hint}"


SERVICE = """
[[self_test.service]]
id = "web"
run = ["nginx", "-g", "daemon off;"]
port = 443
"""


def test_a_service_is_a_self_test(tmp_path: Path) -> None:
    text = (
        WHOLE.partition("[[self_test.commands]]")[0]
        + SERVICE
        + (
            'ask = "tls"\nbefore = { protocol = "TLSv1.2" }\n'
            'after = { protocol = "TLSv1.3", banner = "200 OK" }\n'
            'files = { "/etc/n.conf" = "listen @PORT@" }\n'
        )
    )
    (service,) = load_text(tmp_path, text).self_test.service
    assert service.before
    assert (service.before.protocol, service.after.banner) == ("TLSv1.2", "200 OK")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "after"),
        ('after = { banner = "(" }', "not a regular expression"),
        ("after = {}", "needs a protocol or a banner"),
        ('after = { cipher = "X", banner = "x" }', "cipher needs a protocol"),
        ('after = { protocol = "TLSv1.3" }', "ask"),
        ('ask = "tls"\nafter = { banner = "x" }', "needs a protocol"),
        ('ask = "imap"\nafter = { banner = "x" }', "ask"),
        ('ask = "starttls-smtp"\nsay = "x"\nafter = { protocol = "TLSv1.3" }', "say"),
        ('files = { "etc/x" = "" }\nafter = { banner = "x" }', "whole path"),
        ('files = { "/etc/../x" = "" }\nafter = { banner = "x" }', "whole path"),
        ('after = { banner = "x" }' + SERVICE + 'after = { banner = "x" }', "two services are called web"),
    ],
)
def test_a_service_that_proves_nothing_is_refused(tmp_path: Path, lines: str, told: str) -> None:
    text = WHOLE.partition("[[self_test.commands]]")[0] + SERVICE + lines
    with pytest.raises(UsageError, match=told):
        load_text(tmp_path, text)
