"""Who can still talk to a server, by what was seen of it."""

from __future__ import annotations

from backport.probe.clients import Fate, Row, seen, table
from backport.probe.hello import TLS1, TLS1_2, Answer
from backport.probe.tls import Session
from backport.selftest.authority import Authority

OLD = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})


def rows(
    *answers: Answer,
    refused: frozenset[str] = OLD,
    missing: bool = False,
    trusted: bool = True,
    best: str = "TLSv1.3",
) -> dict[str, Row]:
    leaf = Authority.create().issue(["mail.example.org"]).certificate
    cipher = "TLS_AES_256_GCM_SHA384" if best == "TLSv1.3" else "AES256-SHA"
    session = Session(protocol=best, cipher=cipher, chain=(leaf,), errors=())
    return {
        row.client: row for row in table(seen(session, answers, refused, missing=missing, trusted=trusted))
    }


def test_the_missing_intermediate_that_phones_refuse() -> None:
    found = rows(Answer(version=TLS1_2, suite=0xC02F), missing=True)
    assert found["iOS 12"].fate is Fate.DISTRUSTS
    assert "intermediate is not sent" in found["iOS 12"].reason
    assert found["Thunderbird"].fate is Fate.SERVED
    assert "it is fetched" in found["Thunderbird"].reason
    assert found["Exim 4.91 with OpenSSL 1.1.1"].fate is Fate.SERVED


def test_a_server_of_tls_1_3_alone_keeps_old_clients_out() -> None:
    found = rows(refused=OLD | {"TLSv1.2"})
    assert {name for name, row in found.items() if row.fate is Fate.SERVED} == {
        "Thunderbird", "Exim 4.91 with OpenSSL 1.1.1",
    }  # fmt: skip
    assert found["Java 8"].fate is Fate.REFUSED


def test_what_was_not_seen_is_not_known() -> None:
    found = rows()
    assert found["Android 8"] == Row(client="Android 8", fate=Fate.UNKNOWN, reason="TLSv1.2 was not examined")
    dhe = rows(Answer(version=TLS1_2, suite=0x009E))
    assert dhe["Android 8"].fate is Fate.UNKNOWN
    assert (dhe["Java 8"].fate, dhe["Java 8"].cipher) == (Fate.SERVED, "DHE-RSA-AES128-GCM-SHA256")


def test_an_old_server_serves_old_clients_alone() -> None:
    newer = frozenset({"TLSv1.1", "TLSv1.2", "TLSv1.3"})
    found = rows(
        Answer(version=TLS1, suite=0x0005), Answer(version=TLS1, suite=0x002F), refused=newer, best="TLSv1"
    )
    assert found["Thunderbird"].fate is Fate.REFUSED
    served = found["OpenSSL 1.0.1 (sending mail)"]
    assert (served.protocol, served.cipher) == ("TLSv1", "AES256-SHA")


def test_a_stranger_s_root() -> None:
    found = rows(Answer(version=TLS1_2, suite=0xC02F), trusted=False)
    assert found["Android 8"].fate is Fate.DISTRUSTS
    assert found["OpenSSL 1.1.0 (sending mail)"].fate is Fate.SERVED
