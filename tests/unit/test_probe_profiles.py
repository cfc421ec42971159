"""A server's checks under a published profile."""

from __future__ import annotations

import pytest

from backport.artifacts import Check, Verdict
from backport.probe import plan
from backport.probe.profiles import _RULES, Profile, held_against


def check(check_id: str, verdict: Verdict, advice: str = "Mend it.") -> Check:
    return Check(id=check_id, title="", verdict=verdict, advice=advice)


@pytest.mark.parametrize("profile", list(Profile))
def test_every_rule_is_about_a_check_and_has_its_paragraph(profile: Profile) -> None:
    assert set(_RULES[profile]) <= set(plan())
    assert all(rule.paragraph for rule in _RULES[profile].values())


@pytest.mark.parametrize("profile", list(Profile))
def test_a_server_that_is_right_stays_right(profile: Profile) -> None:
    good = [
        check(check_id, Verdict.PASS, "") for check_id in plan() if check_id != "transport.serves-tlsv1.2"
    ]
    assert not [
        one.id for one in held_against(good, profile, opportunistic=True) if one.verdict is not Verdict.PASS
    ]


def test_what_a_profile_asks_for_has_its_paragraph_and_its_price() -> None:
    (found,) = held_against(
        [check("transport.refuses-tlsv1", Verdict.FAIL)], Profile.BCP195, opportunistic=True
    )
    assert "RFC 9325 section 3.1.1" in found.advice
    assert "RFC 7435" in found.advice
    (direct,) = held_against(
        [check("transport.refuses-tlsv1", Verdict.FAIL)], Profile.BCP195, opportunistic=False
    )
    assert "RFC 7435" not in direct.advice


def test_tls_1_2_under_modern_and_under_the_others() -> None:
    served = [check("transport.serves-tlsv1.2", Verdict.PASS, "")]
    refused = [check("transport.serves-tlsv1.2", Verdict.WARN)]

    def verdict(checks: list[Check], profile: Profile, *, opportunistic: bool = True) -> Verdict:
        return held_against(checks, profile, opportunistic=opportunistic)[0].verdict

    assert verdict(served, Profile.MODERN) is Verdict.WARN
    assert verdict(served, Profile.MODERN, opportunistic=False) is Verdict.FAIL
    assert verdict(refused, Profile.MODERN) is Verdict.PASS
    assert verdict(refused, Profile.BCP195) is Verdict.FAIL
    assert verdict(served, Profile.BCP195) is Verdict.PASS


def test_what_was_not_examined_is_not_judged() -> None:
    skipped = check("transport.refuses-sslv2", Verdict.SKIPPED, "not examined")
    (found,) = held_against([skipped], Profile.MODERN, opportunistic=True)
    assert (found.verdict, found.advice) == (Verdict.SKIPPED, "not examined")
