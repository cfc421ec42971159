from __future__ import annotations

import itertools

import pytest

from backport.errors import UsageError
from backport.sources.order import Node, build_order, names_in

OPENSSL = Node(
    build_requires=("zlib-devel", "perl(Test::More)"),
    requires=("crypto-policies", "libc.so.6()(64bit)"),
    provides=("openssl", "openssl-libs", "openssl-devel", "libcrypto.so.1.1()(64bit)"),
)
POLICIES = Node(build_requires=("openssl", "asciidoc"), provides=("crypto-policies",))


def test_package_is_behind_what_its_binaries_require() -> None:
    nodes = {"openssl": OPENSSL, "crypto-policies": Node(provides=("crypto-policies",))}
    assert build_order(nodes) == ("crypto-policies", "openssl")


def test_package_is_behind_what_it_build_requires() -> None:
    assert build_order({"a": Node(build_requires=("openssl-devel",)), "openssl": OPENSSL}) == ("openssl", "a")


def test_chain_is_followed_whatever_the_order_of_the_input() -> None:
    nodes = {
        "a": Node(build_requires=("c-devel",), provides=("a",)),
        "b": Node(requires=("a",), provides=("b",)),
        "c": Node(provides=("c-devel",)),
        "d": Node(provides=("d",)),
    }
    for names in itertools.permutations(nodes):
        assert build_order({name: nodes[name] for name in names}) == ("c", "a", "b", "d")


def test_own_provides_are_no_need() -> None:
    assert build_order(
        {"a": Node(build_requires=("a",), requires=("a-libs",), provides=("a", "a-libs"))}
    ) == ("a",)


def test_cycle_is_named_with_its_reasons() -> None:
    with pytest.raises(UsageError) as refused:
        build_order({"openssl": OPENSSL, "crypto-policies": POLICIES, "other": Node()})
    message = refused.value.message
    assert (
        "openssl → crypto-policies → openssl" in message
        or "crypto-policies → openssl → crypto-policies" in message
    )
    assert "openssl needs crypto-policies from crypto-policies" in message
    assert "crypto-policies needs openssl from openssl" in message
    assert "other" not in message


def test_stock_packages_break_a_cycle() -> None:
    stock = Node(
        build_requires=POLICIES.build_requires, provides=POLICIES.provides, stock=frozenset({"openssl"})
    )
    assert build_order({"openssl": OPENSSL, "crypto-policies": stock}) == ("crypto-policies", "openssl")


@pytest.mark.parametrize(
    ("dependency", "names"),
    [
        ("perl(Test::More)", ("perl(Test::More)",)),
        ("(a and b)", ("a", "b")),
        ("(a >= 1:2-3 or b)", ("a", "b")),
        ("((a if b) and perl(C::D))", ("a", "b", "perl(C::D)")),
        ("(python3dist(x[y]) >= 2 with python3dist(x[y]) < 3)", ("python3dist(x[y])", "python3dist(x[y])")),
        ("(", ()),
    ],
)
def test_names_in_dependencies(dependency: str, names: tuple[str, ...]) -> None:
    assert names_in(dependency) == names


def test_rich_dependency_orders_too() -> None:
    nodes = {"a": Node(build_requires=("(z-devel >= 1 or y)",)), "z": Node(provides=("z-devel",))}
    assert build_order(nodes) == ("z", "a")
