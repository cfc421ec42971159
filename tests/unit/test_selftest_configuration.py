from __future__ import annotations

import pytest

from backport.errors import UsageError
from backport.selftest.configuration import ALL_POLICIES, Policy, Server, Trial, render_configuration

MARKS = {
    Policy.REQUIRE_HELO: "def:sender_helo_name",
    Policy.HELO_BOTNET: r"ylmf-pc\W*$\N",
    Policy.SENDER_BOTNET: r"Anastasia.{2,5}[@%]\N",
    Policy.SENDER_BOTNET_COARSE: r"Anastasia\N",
    Policy.REQUIRE_TLS_INBOUND: "!encrypted = *",
    Policy.REQUIRE_TLS_OUTBOUND: "hosts_require_tls = *",
}


@pytest.mark.parametrize("policy", list(Policy))
def test_a_policy_brings_its_rule_with_an_explanation_and_no_other(policy: Policy) -> None:
    text = render_configuration({policy}, Server(), purpose="for a test")
    assert {one for one, mark in MARKS.items() if mark in text} == {policy}
    assert f"# {policy}: " in text


def test_all_rules_go_together() -> None:
    text = render_configuration(ALL_POLICIES, Server(host="mx.example.org"), purpose="for a test")
    assert {one for one, mark in MARKS.items() if mark in text} == ALL_POLICIES
    assert text.startswith("# Exim for a test.\n")
    assert "primary_hostname = mx.example.org\n" in text
    assert "deliver_drop_privilege" not in text


def test_without_policies_there_is_still_a_server() -> None:
    text = render_configuration((), Server(ocsp_answer="/etc/ocsp.der"), purpose="for a test")
    assert not any(mark in text for mark in MARKS.values())
    assert "tls_ocsp_file = /etc/ocsp.der\n" in text


def test_the_two_forms_of_the_sender_rule_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="two forms"):
        render_configuration({Policy.SENDER_BOTNET, Policy.SENDER_BOTNET_COARSE}, Server(), purpose="x")


@pytest.mark.parametrize(
    ("time", "rule"),
    [
        ("2h", "F,2h,900s"),
        ("1h30m", "F,1h30m,900s"),
        ("20m", "F,20m,300s"),
        ("7d", "F,7d,900s"),
        ("1w", "F,1w,900s"),
    ],
)
def test_how_long_mail_is_tried_again_where_tls_fails(time: str, rule: str) -> None:
    text = render_configuration(ALL_POLICIES, Server(), purpose="x", keep_trying=time)
    assert f"\n*  tls_required  {rule}\n" in text
    assert "\n*  tls_required\n" in render_configuration(ALL_POLICIES, Server(), purpose="x")


@pytest.mark.parametrize("time", ["", "2", "h", "0h", "3s", "2 h", "-2h", "2h\n", "8d", "٢h", "9999999999h"])
def test_what_is_no_time_to_keep_trying(time: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        render_configuration(ALL_POLICIES, Server(), purpose="x", keep_trying=time)


def test_there_is_nothing_to_keep_trying_without_the_rule() -> None:
    with pytest.raises(UsageError, match="require-tls-outbound"):
        render_configuration((), Server(), purpose="x", keep_trying="2h")


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (Server(host=""), "no host name"),
        (Server(host="two words"), "no host name"),
        (Server(host="a\nperl_startup = do_evil"), "no host name"),
        (Server(certificate="/etc/a\nperl_startup = do_evil"), "cannot stand"),
        (Server(private_key="key.pem"), "no whole path"),
        (Server(ocsp_answer="."), "no whole path"),
    ],
)
def test_a_value_cannot_bring_settings_of_its_own(server: Server, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        render_configuration((), server, purpose="x")


def test_a_name_stands_there_in_ascii() -> None:
    text = render_configuration((), Server(host="Mail.Bücher.example."), purpose="x")
    assert "primary_hostname = mail.xn--bcher-kva.example\n" in text


def test_a_trial_keeps_to_its_own_places() -> None:
    trial = Trial(
        address="127.0.0.1", port=26, spool="/var/spool/t", trust="/t.pem", routes={"a.example": "127.0.0.9"}
    )
    text = render_configuration(ALL_POLICIES, Server(trial=trial), purpose="for a test")
    assert "spool_directory = /var/spool/t\n" in text
    assert "route_list = a.example 127.0.0.9\n" in text
    assert "dnslookup" not in text
    assert (trial.log, trial.mailbox) == ("/var/spool/t/log/mainlog", "/var/spool/t/mailbox")
