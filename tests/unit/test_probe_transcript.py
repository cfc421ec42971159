from __future__ import annotations

from backport.probe.transcript import Style, Transcript, printable


def test_lines_carry_the_time_since_connecting() -> None:
    times = iter([100.0, 100.0994, 100.2, 112.5])
    transcript = Transcript(lambda: next(times))
    transcript.note("Connected to server")
    transcript.received(["220-one", "220 two"])
    transcript.sent("EHLO client.test")
    assert transcript.text() == (
        "[000.099] Connected to server\n[000.200] <-- 220-one / 220 two\n[012.500] --> EHLO client.test\n"
    )


def test_a_hostile_line_can_neither_move_the_cursor_nor_fill_the_screen() -> None:
    transcript = Transcript(lambda: 0.0)
    transcript.received(["220 \x1b[2J\x9b\r\u202e" + "x" * 10_000])
    text = transcript.text()
    assert text.count("\n") == 1
    assert text.startswith("[000.000] <-- 220 \\x1b[2J\\x9b\\r\\u202exxx")
    assert len(text) < 500


def test_a_reply_of_many_lines_stays_one_line_of_bounded_length() -> None:
    transcript = Transcript(lambda: 0.0)
    transcript.received([f"250-{number}" + "x" * 300 for number in range(100)])
    text = transcript.text()
    assert text.count("\n") == 1
    assert 1900 < len(text) < 2100
    assert text.endswith("…\n")


def test_printable_cuts_to_the_limit() -> None:
    assert printable("abcdef", limit=6) == "abcdef"
    assert printable("abcdefg", limit=6) == "abcde…"


def test_the_form_of_checktls_has_each_line_of_a_reply_by_itself() -> None:
    transcript = Transcript(clock=lambda: 0.0, style=Style.CHECKTLS)
    transcript.sent("EHLO client.example")
    transcript.received(["250-mx.example.org", "250-SIZE 1000", "250 STARTTLS"])
    assert transcript.text() == (
        "[000.000]  --> EHLO client.example\n"
        "[000.000] <--  250-mx.example.org\n"
        "               250-SIZE 1000\n"
        "               250 STARTTLS\n"
    )
