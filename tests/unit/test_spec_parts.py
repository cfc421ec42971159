"""The spec editor's rules one by one, on fragments."""

import datetime as dt

import pytest

from backport.errors import PatchError
from backport.spec import ChangelogEntry, SpecEdit, SpecPatch, edit_spec

SPEC = """\
Name: a
Version: 1
Release: {release}
Source0: a.tar.gz
{tags}
%description
A.

%prep
{prep}
%build
"""


def edit(
    *,
    release: str = "1%{?dist}",
    tags: str = "",
    prep: str = "%setup -q",
    patches: tuple[SpecPatch, ...] = (),
    bump: int = 1,
) -> str:
    text = SPEC.format(release=release, tags=tags, prep=prep)
    return edit_spec(text.encode(), name="a.spec", patches=patches, bump=bump, changelog=None).decode()


def prep_of(text: str) -> str:
    return text.partition("%prep\n")[2].partition("%build")[0].rstrip("\n")


def one_by_one(options: str, command: str) -> str:
    """%autosetup and two patches of the spec's own, each as %autopatch applies it; then ours."""
    line = f"%{{uncompress:%{{PATCH#}}}} | %{{{command}}}"
    patches = [line.replace("#", number) for number in "02"]
    return "\n".join([f"%autosetup {options}", *patches, OUR_COMMAND])


OURS = (SpecPatch(name="ours.patch"),)
OUR_COMMAND = "%patch -P 3 -p1"


@pytest.mark.parametrize(
    ("release", "bumped"),
    [
        ("3%{?dist}", "3%{?dist}.bp1"),
        ("3%{?dist} ", "3%{?dist}.bp1 "),
        ("3%{?dist} %dnl kept", "3%{?dist}.bp1 %dnl kept"),
        ("3%{?dist}.4", "3%{?dist}.4.bp1"),
        ("3%{?dist}%{?extraver}", "3%{?dist}%{?extraver}.bp1"),
        (
            "%{?prerel:0.}%{rel}%{?prerel:.%{prerel}}%{?dist}",
            "%{?prerel:0.}%{rel}%{?prerel:.%{prerel}}%{?dist}.bp1",
        ),
        ("2%dist", "2%dist.bp1"),
        ("2%?dist", "2%?dist.bp1"),
        ("2%{dist}", "2%{dist}.bp1"),
        ("2%(rpm -E 4)", "2%(rpm -E 4).bp1"),
        ("2%{lua:print(x)}", "2%{lua:print(x)}.bp1"),
        ("%autorelease", "%{autorelease}.bp1"),
        ("%autorelease  ", "%{autorelease}.bp1  "),
        ("%{autorelease}", "%{autorelease}.bp1"),
        ("%autorelease -b 3 -e x", "%{autorelease -b 3 -e x}.bp1"),
        ("%autorelease %{?pre: -p -s %{pre}}", "%{autorelease %{?pre: -p -s %{pre}}}.bp1"),
        ("0.rc1.%autorelease", "0.rc1.%{autorelease}.bp1"),
        ("%autorelease.2", "%autorelease.2.bp1"),
        ("%{?autorelease}%{!?autorelease:1%{?dist}}", "%{?autorelease}%{!?autorelease:1%{?dist}}.bp1"),
        ("%release_func 37", "%{release_func 37}.bp1"),
        ("%{release_string}", "%{release_string}.bp1"),
        ("1.%( echo 2 )%{?dist}", "1.%( echo 2 )%{?dist}.bp1"),
        ("3%{?dist}.bp1", "3%{?dist}.bp2"),
        ("3%{?dist}.bp7", "3%{?dist}.bp8"),
        ("4", "4~%{?dist}.bp1"),
    ],
)
def test_release(release: str, bumped: str) -> None:
    assert f"\nRelease: {bumped}\n" in edit(release=release)


def test_a_release_given_by_a_macro_of_the_spec_is_looked_through() -> None:
    with_dist = "%global rel 3%{?dist}"
    without = "%global rel 3\n%global baserelease %{rel}"
    assert "Release: %{rel}.bp1" in edit(release="%{rel}", tags=with_dist)
    assert "Release: %{baserelease}~%{?dist}.bp1" in edit(release="%{baserelease}", tags=without)


def test_every_release_tag_of_the_spec_is_raised() -> None:
    branch = "%if 0%{?rhel}\nrelease:\t2%{?dist}\n%endif\n"
    tags = branch + "%package sub\nRelease: 9%{?dist}\n%package twin\nRelease: %{release}"
    text = edit(tags=tags)
    assert "release:\t2%{?dist}.bp1" in text
    assert "Release: 9%{?dist}.bp1" in text
    assert "Release: %{release}\n" in text


@pytest.mark.parametrize(
    ("main", "sub", "bumped"),
    [
        ("3%{?dist}", "%{release}.1", "3%{?dist}.1.bp1"),
        ("3%{?dist}", "%release", "%release"),
        ("3%{?dist}", "2.%{release}", "2.%{release}"),
        ("3%{?dist}.bp2", "%{release}.1", "3%{?dist}.1.bp1"),
        ("4", "%{release}.1", "4.1~%{?dist}.bp1"),
        ("%autorelease", "%{release}.1", "%{autorelease}.1.bp1"),
    ],
)
def test_a_subpackage_that_adds_to_the_release_stays_above_the_target_s(
    main: str, sub: str, bumped: str
) -> None:
    assert f"\nRelease: {bumped}\n" in edit(release=main, tags=f"%package sub\nRelease: {sub}")


def test_a_subpackage_that_adds_to_a_release_that_is_not_known_is_refused() -> None:
    with pytest.raises(PatchError, match="Release that is not known"):
        edit(tags="%if 1\nRelease: 2\n%endif\n%package s\nRelease: %{release}.1")
    with pytest.raises(PatchError, match="Release that is not known"):
        edit(release="%autorelease -b 3", tags="%package s\nRelease: %{release}.1")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("%setup -q", "%setup -q\n%patch -P 0 -p1"),
        ("%setup0 -q\ntrue", "%setup0 -q\n%patch -P 0 -p1\ntrue"),
        ("%setup -q\nautoreconf -fi", "%setup -q\n%patch -P 0 -p1\nautoreconf -fi"),
        ("%setup -q \\\n  -n a-1", "%setup -q \\\n  -n a-1\n%patch -P 0 -p1"),
        ("%autosetup -n a-1", "%autosetup -p1 -n a-1"),
        ("%autosetup -p1 -S git", "%autosetup -p1 -S git"),
        ("%autosetup -S git_am", "%autosetup -S git_am"),
        ("%autosetup -p0", "%autosetup -p1"),
        ("%autosetup -N", "%autosetup -N\n%patch -P 0 -p1"),
        ("%forgeautosetup", "%forgeautosetup -p1"),
        ("%goprep -A\n%autopatch -p1", "%goprep -A\n%autopatch -p1"),
        ("%goprep -k", "%goprep -k\n%patch -P 0 -p1"),
        ("%setup -q\n%setup -q -T -D -a 1", "%setup -q\n%setup -q -T -D -a 1\n%patch -P 0 -p1"),
        ("%setup -qcT\ncp %{SOURCE0} .\ntrue", "%setup -qcT\ncp %{SOURCE0} .\n%patch -P 0 -p1\ntrue"),
        ("%setup -q -c\n\n# in\ncd a-1\ntrue", "%setup -q -c\n\n# in\ncd a-1\n%patch -P 0 -p1\ntrue"),
        ("%setup -q -c\ncd ..\ntrue", "%setup -q -c\n%patch -P 0 -p1\ncd ..\ntrue"),
        ("%setup -q -c\nmv x y\ncd y", "%setup -q -c\n%patch -P 0 -p1\nmv x y\ncd y"),
        ("%setup -q\ncd a-1", "%setup -q\n%patch -P 0 -p1\ncd a-1"),
        (
            "%autosetup -n a\n%autosetup -T -D -a 1 -n a",
            "%autosetup -N -n a\n%autosetup -N -T -D -a 1 -n a\n%patch -P 0 -p1",
        ),
        (
            "%if 1\n%setup -q -n x\n%else\n%setup -q -n y\n%endif",
            "%if 1\n%setup -q -n x\n%else\n%setup -q -n y\n%endif\n%patch -P 0 -p1",
        ),
        (
            "%if 1\n%setup -q -n x\ncd deep\n%else\n%setup -q -n y\n%endif\ntrue",
            "%if 1\n%setup -q -n x\ncd deep\n%else\n%setup -q -n y\n%endif\n%patch -P 0 -p1\ntrue",
        ),
    ],
)
def test_prep_without_patches(before: str, after: str) -> None:
    assert prep_of(edit(prep=before, patches=OURS)) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("%setup -q\n%patch0 -p0", "%setup -q\n%patch0 -p0\n%patch -P 3 -p1"),
        (
            "%setup -q\n%patch -P 0 -p1\n%patch 2 -p1\ntrue",
            "%setup -q\n%patch -P 0 -p1\n%patch 2 -p1\n%patch -P 3 -p1\ntrue",
        ),
        ("%setup -q\n#%patch0 -p1\ntrue", "%setup -q\n%patch -P 3 -p1\n#%patch0 -p1\ntrue"),
        ("%setup -q\npatch -p1 < %{PATCH0}", "%setup -q\npatch -p1 < %{PATCH0}\n%patch -P 3 -p1"),
        ("%setup -q\ngit am %{patches}", "%setup -q\ngit am %{patches}"),
        (
            "%setup -q\nfor p in %{patches}; do\n  patch -p1 -i $p\ndone",
            "%setup -q\nfor p in %{patches}; do\n  patch -p1 -i $p\ndone",
        ),
        (
            "%setup -q\nfor p in %{patches}; do\n  test -f $p\ndone",
            "%setup -q\n%patch -P 3 -p1\nfor p in %{patches}; do\n  test -f $p\ndone",
        ),
        ("%autosetup -N\n%autopatch -p1 -M 2", "%autosetup -N\n%autopatch -p1 -M 2\n%patch -P 3 -p1"),
        ("%autosetup -N\n%autopatch -p1 -m 1", "%autosetup -N\n%autopatch -p1 -m 1"),
        ("%autosetup -N\n%autopatch -p1 0 2", "%autosetup -N\n%autopatch -p1 0 2\n%patch -P 3 -p1"),
        (
            "%autosetup -N\n%autopatch -p0",
            "%autosetup -N\n%patch -P 0 -p0\n%patch -P 2 -p0\n%patch -P 3 -p1",
        ),
        (
            "%autosetup -N\n%autopatch -p1 %{!?all:-M 1}",
            "%autosetup -N\n%autopatch -M 2 -p1 %{!?all:-M 1}\n%patch -P 3 -p1",
        ),
        (
            "%autosetup -v -n a",
            one_by_one("-N -v -n a", "__scm_apply_patch"),
        ),
        (
            "%autosetup -S git_am -p2",
            one_by_one("-N -S git_am -p2", "__scm_apply_git_am -q -p2 -m %{basename:%{PATCH#}} %{PATCH#} #"),
        ),
        (
            "%setup -q\n%if 0%{?rhel}\n%patch0 -p1\n%endif\ntrue",
            "%setup -q\n%if 0%{?rhel}\n%patch0 -p1\n%endif\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%autosetup -N\n%if 0%{?rhel}\n%autopatch -p1\n%endif",
            "%autosetup -N\n%if 0%{?rhel}\n%patch -P 0 -p1\n%patch -P 2 -p1\n%endif\n%patch -P 3 -p1",
        ),
        (
            "%setup -q\npushd sub\n%patch0 -p1\npopd\ntrue",
            "%setup -q\npushd sub\n%patch0 -p1\npopd\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%setup -q -c\npushd sub\n%patch0 -p1\npopd\ntrue",
            "%setup -q -c\npushd sub\n%patch0 -p1\n%patch -P 3 -p1\npopd\ntrue",
        ),
        (
            "%setup -q -n a\n%autopatch -p1 -m 2\n%setup -q -b 1 -n b\n%autopatch -p1 -M 1",
            "%setup -q -n a\n%autopatch -M 2 -p1 -m 2\n%setup -q -b 1 -n b\n%autopatch -p1 -M 1\n"
            + OUR_COMMAND,
        ),
        ("%setup -q\ncd src\n%patch0 -p0\ntrue", "%setup -q\ncd src\n%patch0 -p0\n%patch -P 3 -p1\ntrue"),
        (
            "%setup -q\n%autopatch -p1 -M 1\npushd sub\n%autopatch -p1 -m 2\npopd",
            "%setup -q\n%autopatch -p1 -M 1\npushd sub\n%autopatch -M 2 -p1 -m 2\npopd\n%patch -P 3 -p1",
        ),
        (
            "%setup -q\n(\ncd sub\n%patch0 -p1\n)\ntrue",
            "%setup -q\n(\ncd sub\n%patch0 -p1\n)\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%setup -q -c\ncd a\n%patch0 -p1\ncd ../b\n%patch2 -p1\ncd ..\ntrue",
            "%setup -q -c\ncd a\n%patch0 -p1\ncd ../b\n%patch2 -p1\n%patch -P 3 -p1\ncd ..\ntrue",
        ),
        (
            "%setup -q\nif true; then\n%patch0 -p1\nelse\n%patch2 -p1\nfi\ntrue",
            "%setup -q\nif true; then\n%patch0 -p1\nelse\n%patch2 -p1\nfi\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%setup -q\ncat > x <<EOF\nif\n%patch0 -p1\nEOF\ntrue",
            "%setup -q\ncat > x <<EOF\nif\n%patch0 -p1\nEOF\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%setup -q\nsed -i '\n/done/d\n%patch0\n' x\ntrue",
            "%setup -q\nsed -i '\n/done/d\n%patch0\n' x\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%setup -q\ncase x in\n a) %patch0 -p1 ;;\n (b) true ;;\nesac\ntrue",
            "%setup -q\ncase x in\n a) %patch0 -p1 ;;\n (b) true ;;\nesac\n%patch -P 3 -p1\ntrue",
        ),
        (
            "%setup -q\n%patch0 -p1 \\\n%if 1\n  -b .x \\\n%endif\n  -E\ntrue",
            "%setup -q\n%patch0 -p1 \\\n%if 1\n  -b .x \\\n%endif\n  -E\n%patch -P 3 -p1\ntrue",
        ),
    ],
)
def test_prep_with_patches(before: str, after: str) -> None:
    text = edit(prep=before, tags="Patch0: zero.patch\nPatch2: two.patch", patches=OURS)
    assert prep_of(text) == after
    assert "Patch2: two.patch\nPatch3: ours.patch\n" in text


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", "Source0: a.tar.gz\nPatch0:  ours.patch\n"),
        ("Patch: one.patch\nPatch: two.patch", "Patch: two.patch\nPatch2: ours.patch\n"),
        ("Patch 0:\tzero.patch", "Patch 0:\tzero.patch\nPatch1:\tours.patch\n"),
        ("#Patch5: five.patch\n%dnl Patch6: six.patch", "Source0: a.tar.gz\nPatch0:  ours.patch\n"),
        ("%if 1\nPatch7: seven.patch\n%endif\nURL: x", "%endif\nPatch8: ours.patch\nURL: x\n"),
        (
            "%if 1\nPatch7: seven.patch\n%package sub\n%endif",
            "Patch8: ours.patch\n%if 1\nPatch7: seven.patch\n",
        ),
        ("%package sub\nPatch4: four.patch", "Source0: a.tar.gz\nPatch5:  ours.patch\n"),
        ("%{?x:Patch4: four.patch}", "Source0: a.tar.gz\nPatch5:  ours.patch\n"),
    ],
)
def test_patch_tags(tags: str, expected: str) -> None:
    assert expected in edit(tags=tags, patches=OURS)


def test_a_spec_s_own_macros_release_and_patch_are_seen_through() -> None:
    text = edit(release="%{release}%{?dist}", tags="%global release 6\n%global patch 2", patches=OURS)
    assert "Release: %{release}%{?dist}.bp1" in text
    assert prep_of(text) == "%setup -q\npatch -p1 --fuzz=0 < %{PATCH0}"


OUR_SOURCE = "patch -p1 --fuzz=0 -i %{SOURCE1}"


@pytest.mark.parametrize(
    "prep",
    [
        "%setup -q\n%{lua:\nfor i, p in ipairs(patches) do print(p) end\n}\nxargs git am < list",
        '%setup -q\n%{lua: for i, p in ipairs(patches) do print("patch -p1 -i "..p.."\\n") end}',
        '%setup -q\n%{lua: for i = 1, #patches do print("%patch -P "..(i-1).." -p1\\n") end}',
        "%setup -q\nfor p in %{patches}; do apply_one $p; done",
        "%setup -q\nfor p in %{patches}; do\n  [ -s $p ] && patch -p1 -i $p\ndone",
        "%setup -q\nfor p in %{patches}; do case $p in *x*) patch -p1 -i $p;; esac; done",
        "%setup -q\nif true; then\ngit am %{patches}\nfi",
        "%setup -q\necho %{patches} | xargs -n1 patch -p1 -i",
        "%setup -q\n%{?patches:git am %{patches}}",
    ],
)
def test_what_does_something_of_its_own_with_all_patches_does_not_get_ours(prep: str) -> None:
    text = edit(prep=prep, tags="Patch0: zero.patch", patches=OURS)
    assert prep_of(text) == f"{prep}\n{OUR_SOURCE}"
    assert "Source0: a.tar.gz\nSource1: ours.patch\nPatch0: zero.patch\n" in text


def test_lua_that_only_counts_all_patches_for_another_section_is_no_matter() -> None:
    """As openssl's and gnutls's specs do, for a digest of all of their files."""
    macro = "%define digest() %{lua:\nfor i, p in ipairs(patches) do f = f..p end\nprint(f)\n}"
    assert prep_of(edit(tags=macro, prep="%autosetup -p1", patches=OURS)) == "%autosetup -p1"


def test_what_does_something_with_all_patches_in_another_section_does_not_get_ours() -> None:
    text = edit(tags="%{lua: for _, p in ipairs(patches) do x(p) end}", patches=OURS)
    assert prep_of(text) == f"%setup -q\n{OUR_SOURCE}"
    assert "Source1: ours.patch\n" in text


def test_a_macro_that_prep_names_and_that_does_something_with_all_patches_is_refused() -> None:
    for tags in (
        "%global all %{patches}",
        "%define all() %{lua:\nfor _, p in ipairs(patches) do x(p) end\n}",
    ):
        with pytest.raises(PatchError, match="%prep uses this macro"):
            edit(prep="%setup -q\nxargs patch <<< %{all}", tags=tags, patches=OURS)
        edit(prep="%setup -q", tags=tags, patches=OURS)


@pytest.mark.parametrize(
    "prep",
    [
        "%setup -q\nfor p in %{patches}; do patch -p1 -i $p; done",
        "%setup -q\nfor p in %{patches}; do\n  echo $p\n  %__patch -p1 -i $p\ndone",
        "%setup -q\ncat %{patches} | patch -p1",
        "%setup -q\ngit am %{patches} </dev/null",
        "%{?x:\n%autosetup -p1 -n a}\n%{!?x:\n%autosetup -p1 -n b}",
        "%{?x:%autosetup -p1 -n a}%{!?x:%autosetup -p1 -n b}",
        "%goprep -p1\n%setup -q -T -D -a1",
    ],
)
def test_ours_is_applied_with_all_others_or_at_another_level_by_itself(prep: str) -> None:
    text = edit(prep=prep, tags="Patch0: zero.patch", patches=OURS)
    assert prep_of(text) == prep
    assert "Patch0: zero.patch\nPatch1: ours.patch\n" in text
    text = edit(prep=prep, tags="Patch0: zero.patch", patches=(SpecPatch(name="ours.patch", strip=0),))
    assert prep_of(text) == f"{prep}\npatch -p0 --fuzz=0 -i %{{SOURCE1}}"
    assert "ours.patch\nPatch0: zero.patch\n" in text


@pytest.mark.parametrize(
    "prep",
    [
        "%autosetup -p1 -n a %autosetup -p1 -n b",
        "%{?x:%autosetup -p1 -n a}%{!?y:%autosetup -p1 -n b}",
        "%{?x:%autosetup -p1 -n a}\n%global x 1\n%{!?x:%autosetup -p1 -n b}",
        "%{?x:%autosetup -p1 -n a}",
        "%{?x:%{!?y:%autosetup -p1 -n a}}%{!?x:%autosetup -p1 -n b}",
    ],
)
def test_what_may_apply_all_patches_twice_or_never_does_not_get_ours(prep: str) -> None:
    text = edit(prep=prep, tags="Patch0: zero.patch", patches=OURS)
    assert prep_of(text) == f"{prep}\n{OUR_SOURCE}"


def test_a_source_of_ours_gets_a_number_that_no_other_has_or_may_get() -> None:
    prep = "%setup -q\nfor p in %{patches}; do apply $p; done"
    for tags, number in (
        ("Source7: b\nPatch0: a", 8),
        ("Source: b\nSource: c\nPatch0: a", 3),
        ("%{?x:Source9: b}\nPatch0: a", 10),
        ("Source%{n}: b\nPatch0: a", 100000),
        ("%include more.inc\nPatch0: a", 100000),
    ):
        assert f"Source{number}:" in edit(prep=prep, tags=tags, patches=OURS)
    assert "Source31:" in edit(prep=f"{prep}\ncp %{{SOURCE30}} .", tags="Patch0: a", patches=OURS)
    for tags in ("%sourcelist\nb\n%package x", "%package x\nSource: b"):
        with pytest.raises(PatchError, match="source"):
            edit(prep=prep, tags=tags, patches=OURS)
    with pytest.raises(PatchError, match="every patch"):
        edit(prep=f"{prep}\ncp %{{sources}} .", patches=OURS)


def test_patches_that_the_preamble_includes_come_before_ours() -> None:
    text = edit(tags="%include %{SOURCE1}\nURL: x", prep="%setup -q\ngit am %{patches}", patches=OURS)
    assert "%include %{SOURCE1}\nPatch100000: ours.patch\nURL" in text
    text = edit(tags="%include %{SOURCE1}", prep="%autosetup -p2", patches=OURS)
    assert prep_of(text) == "%autosetup -p2\npatch -p1 --fuzz=0 -i %{SOURCE100000}"


@pytest.mark.parametrize(
    ("prep", "after"),
    [
        ("pushd a\n%patch0 -p1\npopd", "pushd a\n%patch0 -p1\n%patch -P 3 -p1\npopd"),
        (
            "pushd a\n%patch0 -p1\npopd\npushd b\n%patch2 -p1\ntrue\npopd",
            "pushd a\n%patch0 -p1\npopd\npushd b\n%patch2 -p1\n%patch -P 3 -p1\ntrue\npopd",
        ),
        (
            "cd a\n%patch0 -p1\n%if 1\n%patch2 -p1\n%endif\ncd ..",
            "cd a\n%patch0 -p1\n%if 1\n%patch2 -p1\n%endif\n%patch -P 3 -p1\ncd ..",
        ),
        (
            "pushd a\n%patch0 -p1\npopd\n%patch2 -p1",
            "pushd a\n%patch0 -p1\npopd\n%patch2 -p1\n" + OUR_COMMAND,
        ),
    ],
)
def test_in_a_container_ours_goes_where_the_last_own_patch_does(prep: str, after: str) -> None:
    text = edit(prep=f"%setup -q -c\n{prep}", tags="Patch0: zero.patch\nPatch2: two.patch", patches=OURS)
    assert prep_of(text) == f"%setup -q -c\n{after}"


@pytest.mark.parametrize(
    "prep",
    [
        "pushd a\n%patch0 -p1\npopd\n%if 1\npushd b\n%patch2 -p1\npopd\n%endif",
        "(\ncd a\n%patch0 -p1\n)",
        "for d in a b; do\npushd $d\n%patch0 -p1\npopd\ndone",
        "popd\n%patch0 -p1\ncd a",
    ],
)
def test_in_a_container_ours_is_refused_where_the_last_own_patch_is_not_always_applied(prep: str) -> None:
    with pytest.raises(PatchError, match="only makes a container"):
        edit(prep=f"%setup -q -c\n{prep}", tags="Patch0: zero.patch\nPatch2: two.patch", patches=OURS)


def test_a_plain_cd_behind_a_source_that_was_unpacked_by_hand_is_followed() -> None:
    prep = "rm -rf a-1\nunzip -d a-1 %{SOURCE0}\ncd a-1\nsed -i s/x/y/ f"
    assert prep_of(edit(prep=prep, patches=OURS)) == prep.replace("cd a-1", "cd a-1\n%patch -P 0 -p1")
    for other in (
        "unzip %{SOURCE0}\ntrue\ncd a",
        "tar xf %{SOURCE0}\ntar xf %{SOURCE1}\ncd a",
        "tar xf %{SOURCE0}\ncd ..",
        "tar xf %{SOURCE0} && cd a",
    ):
        with pytest.raises(PatchError, match="by hand"):
            edit(prep=other, patches=OURS)


def test_an_unknown_macro_is_named_before_the_sources_that_are_handled_behind_it() -> None:
    with pytest.raises(PatchError, match=r"a\.spec, line 10: .*macro"):
        edit(prep="%do_common_setup\ncp %{SOURCE4} x", patches=OURS)


@pytest.mark.parametrize(
    "line",
    [
        "git am %{_sourcedir}/*.patch",
        "git am %{_sourcedir}/[n-p]*.patch",
        'for p in "$RPM_SOURCE_DIR"/*.patch; do patch -p1 < $p; done',
        "cat ${RPM_SOURCE_DIR}/%{name}-*.patch %{_sourcedir}/o??s.p* | patch -p1",
        "find %{_sourcedir} -name '*.patch' | xargs git am",
        "git am $(ls %{_sourcedir})",
        "git am ../../SOURCES/{a,ours}.p*",
        "cd %{_sourcedir}\nfor p in *.patch; do x $p; done",
        "git am $(dirname %{SOURCE0})/*.patch",
        "git am %{where}/*.patch",
    ],
)
def test_a_glob_over_the_sources_that_would_match_ours_is_refused(line: str) -> None:
    with pytest.raises(PatchError, match="a patch of the recipe"):
        edit(prep=f"%setup -q\n{line}", tags="%global where %{_sourcedir}", patches=OURS)


@pytest.mark.parametrize(
    "line",
    [
        "git am %{_sourcedir}/[0-9]*.patch",
        "cp %{_sourcedir}/*.conf .",
        "git am *.patch",
        "# git am %{_sourcedir}/*.patch",
        "mv %{_sourcedir}/a/* %{_sourcedir}",
        '( cd "$(dirname "%SOURCE1")" ; sha256sum -c x )\nsed -i s/a/b/ *',
        '(\ncd "$(dirname "%SOURCE1")"\n)\nsed -i s/a/b/ *',
        'case $p in\n*.gz) zcat "$RPM_SOURCE_DIR/$p" ;;\n*) cat "$RPM_SOURCE_DIR/$p" ;;\nesac',
    ],
)
def test_other_globs_are_no_matter(line: str) -> None:
    edit(prep=f"%setup -q\n{line}", patches=OURS)


@pytest.mark.parametrize("prep", ["%autosetup -N\n%autopatch %{opts}", "%autosetup -p0 -S %{style}"])
def test_patches_that_are_applied_in_a_way_that_only_a_macro_knows_stay_by_themselves(prep: str) -> None:
    text = edit(tags="Patch0: zero.patch", prep=prep, patches=OURS)
    assert prep_of(text) == f"{prep}\n{OUR_SOURCE}"


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ("Patch: zero.patch", "%patch -P 0 -p0"),
        ("Patch2: b.patch\nPatch1: a.patch", "%patch -P 2 -p0\n%patch -P 1 -p0"),
        ("%if 1\nPatch1: a.patch\n%endif", "%{?PATCH1:%patch -P 1 -p0}"),
        ("%if 1\nPatch1: a.patch\n%else\nPatch1: b.patch\n%endif", "%{?PATCH1:%patch -P 1 -p0}"),
        ("%{?x:Patch7: a.patch}", "%{?PATCH7:%patch -P 7 -p0}"),
        ("Patch5: a.patch\n%package b\nPatch6: b.patch", "%patch -P 5 -p0\n%patch -P 6 -p0"),
        # rpm before 4.15, which knows no range, numbers no patches either.
        ("Patch: a.patch\nPatch: b.patch", "%autopatch -p0 -M 1"),
        ("Patch3: a.patch\nPatch: b.patch", "%autopatch -p0 -M 4"),
        ("%patchlist\na.patch", "%autopatch -p0 -M 0"),
    ],
)
def test_the_specs_own_patches_keep_their_level_and_order(tags: str, kept: str) -> None:
    lines = prep_of(edit(tags=tags, prep="%autosetup -p0", patches=OURS)).split("\n")
    assert lines[0] == "%autosetup -N -p0"
    assert "\n".join(lines[1:-1]) == kept
    assert lines[-1].startswith("%patch -P ")
    assert lines[-1].endswith(" -p1")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order-mark"])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_macros_are_unset_on_the_first_lines(start: bytes, eol: bytes) -> None:
    text = SPEC.format(release="1", tags="", prep="%setup -q").encode().replace(b"\n", eol)
    edited = edit_spec(start + text, name="a.spec", undefine=("x_one", "_two"), bump=0, changelog=None)
    assert edited == start + b"%undefine x_one" + eol + b"%undefine _two" + eol + text


def test_a_number_lies_beyond_every_range_of_autopatch() -> None:
    text = edit(tags="Patch3: three.patch", prep="%setup -q\n%autopatch -p1 -m 0 -M 99", patches=OURS)
    assert "Patch100: ours.patch" in text
    assert prep_of(text).endswith("-M 99\n%patch -P 100 -p1")
    text = edit(tags="Patch3: three.patch", prep="%setup -q\n%autopatch -p1 -M%{major}99", patches=OURS)
    assert prep_of(text).endswith("-M%{major}99\n%patch -P 100000 -p1")


def test_several_patches_keep_their_order() -> None:
    patches = (SpecPatch(name="a.patch"), SpecPatch(name="b.patch", strip=0))
    text = edit(patches=patches)
    assert "Patch0:  a.patch\nPatch1:  b.patch\n" in text
    assert prep_of(text) == "%setup -q\n%patch -P 0 -p1\n%patch -P 1 -p0"


def test_a_number_that_is_referred_to_is_not_given_again() -> None:
    assert "Patch41: ours.patch" in edit(prep="%setup -q\n%{?rhel:%patch40 -p1}", patches=OURS)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"prep": "tar xf %{SOURCE0}"}, r"a\.spec, line 9: .*by hand"),
        ({"prep": "%do_common_setup"}, "macro that is not known"),
        ({"prep": ""}, "unpacks nothing"),
        ({"prep": "%setup -q\nif true; then\n%patch 7"}, "no place outside"),
        ({"prep": "%setup -q\n%prep"}, "more than once"),
        ({"tags": "Patch%{n}: x.patch"}, r"line 5: only a macro knows"),
        ({"tags": "Patch0: ours.patch"}, "already has"),
        ({"release": "%{unclosed"}, "open brace"),
    ],
)
def test_what_would_be_a_guess_is_refused_with_its_reason(parts: dict[str, str], reason: str) -> None:
    with pytest.raises(PatchError, match=reason) as error:
        edit(
            release=parts.get("release", "1"),
            tags=parts.get("tags", ""),
            prep=parts.get("prep", "%setup -q"),
            patches=OURS,
        )
    assert error.value.hint


@pytest.mark.parametrize(
    "patch",
    [SpecPatch(name="a/b.patch"), SpecPatch(name=""), SpecPatch(name="x y"), SpecPatch(name="x", strip=-1)],
)
def test_a_patch_without_a_plain_name_or_level_is_refused(patch: SpecPatch) -> None:
    with pytest.raises(PatchError):
        edit(patches=(patch,))


def test_a_spec_without_prep_gets_one_where_there_is_something_to_unpack() -> None:
    spec = "Name: a\nVersion: 1\nRelease: 1%{?dist}\nSource0: {}\n%description\nA.\n%build\nmake\n"
    text = edit_spec(
        spec.replace("{}", "a.tar.xz").encode(), name="a.spec", patches=OURS, bump=0, changelog=None
    )
    assert b"A.\n%prep\n%autosetup -p1\n\n%build\n" in text
    with pytest.raises(PatchError, match="no source to unpack"):
        edit_spec(spec.replace("{}", "a.conf").encode(), name="a.spec", patches=OURS, bump=0, changelog=None)


def test_two_prep_sections_in_two_branches_both_get_the_patch() -> None:
    branches = "%if 1\n%prep\n%setup -q\n%else\n%prep\n%setup -c\n%endif\n"
    spec = f"Name: a\nRelease: 1\nSource0: a.zip\n{branches}%build\n"
    text = edit_spec(spec.encode(), name="a.spec", patches=OURS, bump=0, changelog=None).decode()
    assert "%setup -q\n%patch -P 0 -p1\n%else" in text
    assert "%setup -c\n%patch -P 0 -p1\n%endif" in text


@pytest.mark.parametrize(
    ("action", "anchor", "text", "after"),
    [
        ("insert_before", "make test", "export A=1", "%check\nexport A=1\nmake test\nmake more\n"),
        ("insert_after", "make test\n", "true\nfalse\n", "%check\nmake test\ntrue\nfalse\nmake more\n"),
        ("insert_after", "test", "true", "%check\nmake test\ntrue\nmake more\n"),
        ("replace", "test\nmake more", "all", "%check\nmake all\n"),
        ("replace", " test", " -k test", "%check\nmake -k test\nmake more\n"),
        ("delete", "make test", "", "%check\nmake more\n"),
        ("delete", " test", "", "%check\nmake\nmake more\n"),
    ],
)
def test_anchored_edits(action: str, anchor: str, text: str, after: str) -> None:
    spec = "Release: 1\n%check\nmake test\nmake more\n"
    step = SpecEdit(action=action, anchor=anchor, text=text)  # type: ignore[arg-type]  # parametrized
    assert (
        edit_spec(spec.encode(), name="a.spec", edits=[step], bump=0, changelog=None).decode()
        == f"Release: 1\n{after}"
    )


def test_an_anchored_edit_takes_the_spec_s_line_endings() -> None:
    step = SpecEdit(action="insert_after", anchor="one\ntwo", text="three\nfour")
    text = edit_spec(b"one\r\ntwo\r\nfive", name="a.spec", edits=[step], bump=0, changelog=None)
    assert text == b"one\r\ntwo\r\nthree\r\nfour\r\nfive"


def test_an_anchor_must_match_once_or_the_error_says_where() -> None:
    for anchor, reason, hint in (
        ("make", r"a\.spec: the anchor 'make' stands on 2 lines: 1, 2", "Lengthen"),
        ("mak test", "does not stand", "nearest line is 1: make test"),
        ("\n", "empty", "text"),
    ):
        step = SpecEdit(action="delete", anchor=anchor)
        with pytest.raises(PatchError, match=reason) as error:
            edit_spec(b"make test\nmake more\n", name="a.spec", edits=[step], bump=0, changelog=None)
        assert error.value.hint
        assert hint in error.value.hint


def test_edits_come_first_and_build_on_each_other() -> None:
    edits = [
        SpecEdit(action="replace", anchor="Release: x", text="Release: 2%{?dist}"),
        SpecEdit(action="insert_after", anchor="Release: 2%{?dist}", text="URL: u"),
    ]
    text = edit_spec(b"Name: a\nRelease: x\n", name="a.spec", edits=edits, bump=3, changelog=None)
    assert text == b"Name: a\nRelease: 2%{?dist}.bp3\nURL: u\n"


def changelog(text: str, *lines: str) -> str:
    entry = ChangelogEntry(
        date=dt.date(2018, 12, 3), author="Zoë Ü <z@example.org>", lines=lines or ("Backport",)
    )
    return edit_spec(text.encode(), name="a.spec", bump=0, changelog=entry).decode()


def test_changelog_items_are_plain_text_to_rpm() -> None:
    text = changelog("%changelog\n* Mon Dec 03 2018 A - 1\n- x\n", "Use %{dist}\n* and more", "- dashed")
    entry = "* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Use %%{dist}\n  * and more\n- dashed\n\n"
    assert text == f"%changelog\n{entry}* Mon Dec 03 2018 A - 1\n- x\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("%changelog", "%changelog\n* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Backport"),
        (
            "%changelog\n%include changes",
            "%changelog\n* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Backport\n\n%include changes",
        ),
        (
            "%changelog\n%{?autochangelog}\n",
            "%changelog\n%{?autochangelog}\n\n* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Backport\n",
        ),
        (
            "%changelog\n\n%changelog\n* A\n",
            "%changelog\n\n%changelog\n* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Backport\n\n* A\n",
        ),
        (
            "%changelog\n# none\n%changelog\n",
            "%changelog\n* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Backport\n\n# none\n%changelog\n",
        ),
        (
            "%changelog\n* Sat Feb 30 2019 A\n",
            "%changelog\n* Mon Dec 03 2018 Zoë Ü <z@example.org>\n- Backport\n\n* Sat Feb 30 2019 A\n",
        ),
    ],
)
def test_changelog_sections(before: str, after: str) -> None:
    assert changelog(before) == after


def test_a_line_of_an_entry_is_no_conditional_and_no_comment_to_rpm() -> None:
    text = changelog("%changelog\n", "first\n%endif\n # note\n%include /etc/passwd", "%else", "#5")
    entry = "- first\n  - %%endif\n  - # note\n  - %%include /etc/passwd\n- %%else\n- #5\n"
    assert text.endswith(f">\n{entry}")


def test_two_changelogs_with_entries_are_right_only_in_branches() -> None:
    entry = "%changelog\n* Mon Dec 03 2018 A\n- x\n"
    assert changelog(f"%if 1\n{entry}%else\n{entry}%endif\n").count("Zoë") == 2
    with pytest.raises(PatchError, match="line 4: %changelog stands more than once"):
        changelog(entry + entry)


@pytest.mark.parametrize("text", ["Name: a\n%include changes.inc\n", "Name: a\n%{expand:%%changelog}\n"])
def test_a_changelog_from_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(PatchError, match="another file or a macro"):
        changelog(text)


@pytest.mark.parametrize(("author", "lines"), [("", ("x",)), ("A\nB", ("x",)), ("A", ()), ("A", (" ",))])
def test_an_empty_changelog_entry_is_refused(author: str, lines: tuple[str, ...]) -> None:
    entry = ChangelogEntry(date=dt.date(2018, 12, 3), author=author, lines=lines)
    with pytest.raises(PatchError, match="changelog entry"):
        edit_spec(b"Name: a\n", name="a.spec", bump=0, changelog=entry)


@pytest.mark.parametrize(
    "text", [b"", b"Name: a\n", b"%", b"%{", b"\x00\xff\n%prep", b"%if\n%else\n%endif\n%endif\n%else"]
)
def test_what_is_no_spec_is_refused_not_crashed_on(text: bytes) -> None:
    with pytest.raises(PatchError):
        edit_spec(text, name="a.spec", patches=OURS, bump=1, changelog=None)
