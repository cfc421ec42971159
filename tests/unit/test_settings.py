"""Settings files: every mistake is told with file, line and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import Field

from backport import settings
from backport.errors import UsageError
from backport.settings import Fingerprint, Key, Name, Settings, SettingsFile, Url, did_you_mean, load


class Inner(Settings):
    colour: str
    number: int = 1


class Outer(SettingsFile):
    name: Name
    url: Url | None = None
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    table: dict[Name, Inner] = {}
    with_: str = Field(default="", alias="with")


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def problem(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(write(folder, text), Outer, what="settings")
    assert caught.value.exit_code == 2
    return caught.value.message.removeprefix(f"{folder}/")


def test_loads_a_whole_file(tmp_path: Path) -> None:
    text = """
        name = "a"
        with = "x"
        [inner]
        colour = "red"
        [[many]]
        colour = "green"
        [table.b]
        colour = "blue"
    """
    loaded = load(write(tmp_path, text), Outer, what="settings")
    assert dict(loaded) == {
        "name": "a",
        "url": None,
        "with_": "x",
        "inner": Inner(colour="red"),
        "many": (Inner(colour="green"),),
        "table": {"b": Inner(colour="blue")},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'a'\nnmae = 'b'", "settings.toml:2: nmae: unknown key (did you mean name?)"),
        ("name = 'a'\nzzzzzz = 1", "settings.toml:2: zzzzzz: unknown key"),
        (
            "name = 'a'\n\n[inner]\ncolour = 'x'\nnumbr = 2",
            "settings.toml:5: inner.numbr: unknown key (did you mean number?)",
        ),
        (
            "name = 'a'\n[[many]]\ncolour = 'x'\ncolor = 'y'",
            "settings.toml:4: many.0.color: unknown key (did you mean colour?)",
        ),
        (
            "name = 'a'\n[table.b]\ncolour = 'x'\ncolor = 'y'",
            "settings.toml:4: table.b.color: unknown key (did you mean colour?)",
        ),
        ("name = 'a'\n[table.b]\nnumber = 2", "settings.toml:2: table.b.colour: this key is required"),
        (
            "name = 'a'\ninner.colour = 'x'\ninner.number = 'many'",
            "settings.toml:3: inner.number: must be a whole number",
        ),
        ("name = '../x'", "settings.toml:1: name: '../x' is no name"),
        ("name = 'a'\nurl = 'ftp://x/'", "settings.toml:2: url: 'ftp://x/' is no URL"),
        ("", "settings.toml: name: this key is required"),
        ("name = 'a'\ninner = 'x'", "settings.toml:2: inner: must be a table"),
        ("name = 'a'\ntable = 'x'", "settings.toml:2: table: must be a table"),
        ("name = 'a'\ntable.b = 1", "settings.toml:2: table.b: must be a table"),
        ("name = 'a'\nmany = 'x'", "settings.toml:2: many: must be a list"),
        ("name = 1", "settings.toml:1: name: must be text"),
        ("name = 'a'\nwith = false", "settings.toml:2: with: must be text"),
        ("name = 'a'\nwiht = 'x'", "settings.toml:2: wiht: unknown key (did you mean with?)"),
    ],
)
def test_tells_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    assert problem(tmp_path, text).startswith(message)


def test_tells_every_mistake_at_once(tmp_path: Path) -> None:
    assert len(problem(tmp_path, "nmae = 'b'\n[inner]\nnumber = 'x'").splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name =", "at end of document"),
        ("name = 'a'\nname = 'b'\n", "at line 2"),
        ("[inner\n", "at line 1"),
        ("name = 'a' 'b'", "at line 1"),
    ],
)
def test_tells_where_toml_is_malformed(tmp_path: Path, text: str, place: str) -> None:
    found = problem(tmp_path, text)
    assert found.startswith("settings.toml: not valid TOML: ")
    assert place in found


def test_refuses_what_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(UsageError, match="must be UTF-8"):
        load(path, Outer, what="settings")


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load(path, Outer, what="settings")


def test_refuses_a_huge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MAX_BYTES", 10)
    with pytest.raises(UsageError, match="too large for settings"):
        load(write(tmp_path, "name = 'aaaaaaaaaa'"), Outer, what="settings")


def test_models_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner(colour="red").colour = "blue"  # type: ignore[misc]  # that it is refused is the point


class TestFingerprint:
    class Model(Settings):
        key: Fingerprint

    def test_drops_spaces_and_raises_letters(self) -> None:
        assert self.Model(key="5a03 b4dd 8254 eca0 2fda 1637 a20a a56b 4294 76b4").key == (
            "5A03B4DD8254ECA02FDA1637A20AA56B429476B4"
        )

    @pytest.mark.parametrize("value", ["429476B4", "A20AA56B429476B4", "", "X" * 40, "A" * 41, "A" * 63])
    def test_refuses_what_does_not_pin(self, value: str) -> None:
        with pytest.raises(ValueError, match="fingerprint has 40 hexadecimal digits"):
            self.Model(key=value)

    def test_takes_a_fingerprint_of_version_6(self) -> None:
        assert self.Model(key="a" * 64).key == "A" * 64


def test_a_key_accepts_no_sha1_by_itself() -> None:
    assert not Key(fingerprint="A" * 40, file=Path("x")).sha1_self_signature


@pytest.mark.parametrize(
    ("word", "guess"),
    [("opnssl", " (did you mean openssl?)"), ("exi", " (did you mean exim?)"), ("zzz", ""), ("", "")],
)
def test_did_you_mean(word: str, guess: str) -> None:
    assert did_you_mean(word, ["openssl", "exim"]) == guess


def test_what_would_keep_the_parser_busy_is_no_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem(tmp_path, "x = " + "[" * 20_000) == "settings.toml: not valid settings: nested too deeply"
    assert problem(tmp_path, "x = " + "{a=" * 20_000).endswith("nested too deeply")
    assert problem(tmp_path, 'name = "a"\nx = ' + "9" * 5000).startswith(
        "settings.toml:2: not valid TOML: a number"
    )
    assert problem(tmp_path, "x = 9999-99-99").startswith("settings.toml")
    assert "did you mean" not in problem(tmp_path, "a." * 3_000 + "b = 1")
    monkeypatch.setattr(settings, "_DEADLINE", 0.2)
    assert problem(tmp_path, "a." * 200_000 + "b = 1") == "settings.toml: not done after 0.2 seconds"


def test_of_very_many_mistakes_the_first_are_told(tmp_path: Path) -> None:
    told = problem(tmp_path, 'name = "a"\n' + "".join(f"x{number} = 1\n" for number in range(20_000)))
    assert told.count("unknown key") == 20
    assert told.endswith("and 19980 more")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xef\xbb\xbfname = 'a'", "settings.toml: begins with a byte order mark"),
        (b"name = 'a'\nx = '\xff'", "settings.toml:2: settings must be UTF-8 text"),
        (b"name = 'a'\nx = '\0'", "settings.toml: not valid TOML"),
        (b'name = "a"\nx = "b\\u0000"', "settings.toml:2: x: has the control character '\\x00'"),
        (
            b'[inner]\ncolour = ["\\u001b[31m"]',
            r"settings.toml:2: inner.colour: has the control character '\x1b'",
        ),
        (b'"\\u001b[31m" = 1', r"has the control character '\x1b'"),
        (b'name = "a"\nname = "b"\n', "Cannot overwrite a value (at line 2"),
        (b"#" * (1024 * 1024 + 1), "settings.toml: too large for settings"),
    ],
)
def test_what_is_no_plain_text_is_told(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        load(path, Outer, what="settings")
    assert reason in caught.value.message
    assert "\x1b" not in caught.value.message


def test_lines_may_end_as_windows_has_them(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b'name = "a"\r\n[inner]\r\ncolour = "red"\r\n')
    assert load(path, Outer, what="settings").inner == Inner(colour="red")


def test_only_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    for make in (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("nowhere"),
        path.mkdir,
    ):
        make()  # type: ignore[no-untyped-call]
        with pytest.raises(UsageError, match=r"settings\.toml: settings cannot be read: "):
            load(path, Outer, what="settings")
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "real.toml").write_text('name = "a"')
    path.symlink_to("real.toml")
    assert load(path, Outer, what="settings").name == "a"


def test_a_value_in_a_message_is_bounded(tmp_path: Path) -> None:
    assert len(problem(tmp_path, f'name = "{"/" * 100}"')) < 250
    assert len(problem(tmp_path, f'name = "a"\nurl = "{"x" * 100_000}"')) < 250
    assert "must be" in problem(tmp_path, "name = 0x" + "f" * 6000)
