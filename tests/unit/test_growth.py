"""What can be added grows by one module and its line in one table: a run, a plan, the doctor and the command
line see it, and no other file of the tool knows how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import pytest
from typer.testing import CliRunner

from backport import gates, plan, selftest, sources
from backport.artifacts import BuiltRpms, Check, Finding, Nevra, Verdict
from backport.builders import BUILDERS, BuildRequest, choose_builder
from backport.builders.mockconfig import render_config
from backport.commands import app
from backport.errors import UsageError
from backport.gates.subject import Subject
from backport.prepare import ask_source
from backport.probe.ledger import Ledger
from backport.progress import Silent
from backport.recipe import Recipe, SelfTest
from backport.roots.root import Aftermath
from backport.runs.job import Job, load_job
from backport.selftest.examiner import Examiner
from backport.site import Site
from backport.sources import SOURCES, Found, Offer
from backport.target import Target
from tests.unit import test_gates
from tests.unit.evidence_data import small_run
from tests.unit.test_doctor import Host

TARGETS = Path(__file__).parents[2] / "mock-configs"
RECIPE = test_gates.RECIPE.replace('["f28"]', '["f28", "el99"]')
Entry = TypeVar("Entry")
Add = Callable[[Mapping[str, Entry], str, Entry], None]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Add[Any]:
    """Put one more line into a table."""

    def put(table: Mapping[str, Any], name: str, entry: Any) -> None:
        assert isinstance(table, dict)
        monkeypatch.setitem(table, name, entry)

    return put


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Job]:
    """Load the recipe, and the site file of that text beside it."""

    def job(recipe: str = RECIPE, site: str = "", target: str = "f28", **wishes: str) -> Job:
        for folder in ("recipes", "targets"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "recipes/tiny.toml").write_text(recipe)
        (tmp_path / "backport.toml").write_text(
            f'{site}\n[paths]\ncache = "cache"\nrepository = "repository"\nrecipes = "recipes"\n'
            'targets = "targets"\n[signing]\ngnupghome = "gnupg"\n'
        )
        return load_job("tiny", target, tmp_path / "backport.toml", **wishes)

    return job


class Shelf:
    """A source that has one package."""

    name, address = "shelf", "file:///srv/shelf"

    def wanted(self, recipe: Recipe) -> tuple[str, ...]:
        return tuple(package.nvr for package in recipe.packages.values())

    def ask(self, recipe: Recipe, *, arch: str) -> tuple[Offer, ...]:
        nevras = [Nevra.from_nvr(nvr) for nvr in self.wanted(recipe)]
        return tuple(
            Offer(nevra=one, identity=arch, size=1, copies=(), told_by=self.name, origin={}) for one in nevras
        )

    def search(
        self, pattern: str, places: Sequence[str], *, recipes: Sequence[Recipe], tell: Callable[[str], object]
    ) -> tuple[Found, ...]:
        return (Found(package=pattern, builds={}),)

    def version(self) -> str:
        return "Shelf 1"


def test_a_source(
    add: Add[Any], load: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sources.SOURCES, "koji")
    recipe = RECIPE.replace("[source]", '[source]\nkind = "shelf"')
    with pytest.raises(UsageError, match=r"tiny\.toml:5: source\.kind: .*'shelf'"):
        load(recipe)
    add(SOURCES, "shelf", lambda _site: Shelf())
    job = load(recipe)
    assert [str(offer.nevra) for offer in ask_source(job).values()] == ["tiny-1.0-1.fc29.src"]
    assert Host().examine(job.site)["shelf"].verdict is Verdict.PASS
    found = CliRunner().invoke(app, ["search", "tiny", "--json", "--config", str(tmp_path / "backport.toml")])
    assert (found.exit_code, '"tiny"' in found.output) == (0, True)


class Paper:
    """A builder that builds nothing."""

    program: ClassVar[str] = "sh"
    name = identity = "paper"

    @classmethod
    def at(cls, _site: Site, _target: Target, _on_failure: Aftermath | None) -> Paper:
        return cls()

    def build(self, request: BuildRequest) -> BuiltRpms:
        raise NotImplementedError


def test_a_builder(add: Add[Any], load: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"backport\.toml:1: builder: .*'paper'"):
        load(site='builder = "paper"')
    with pytest.raises(UsageError, match=r"^--builder: .*'paper'"):
        load(builder="paper")
    add(BUILDERS, "paper", Paper)
    monkeypatch.setattr("backport.builders.find_program", lambda name: f"/usr/bin/{name}")
    for job in (load(site='builder = "paper"'), load(builder="paper")):
        assert choose_builder(job.site, job.target).name == "paper"
        assert plan._host(job)[1:] == ("paper", "paper")


def test_a_gate(
    add: Add[Any], load: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def examine_names(subject: Subject) -> Iterator[Check]:
        yield Check.of("gate.names.tiny", "Names", Finding.unless(["tiny"], expected="", found="", advice=""))

    recipe = f'{RECIPE}\n[gates.warn]\n"names.tiny" = "known"\n'
    with pytest.raises(UsageError, match=r"tiny\.toml:15: .*'names'"):
        load(recipe)
    for name in tuple(gates.GATES):
        monkeypatch.delitem(gates.GATES, name)
    add(gates.GATES, "names", ("Names", examine_names))
    job = load(recipe)
    tested = small_run(tmp_path).tested
    (check,) = gates.examine(
        tested, job.recipe, job.target, candidate=tmp_path, cache=tmp_path, workspace=tmp_path,
        progress=Silent(),
    )  # fmt: skip
    assert (check.id, check.verdict) == ("gate.names.tiny", Verdict.WARN)
    assert gates.passed(tested, (check,)).checks == (check,)


class Greeting:
    """A kind of the self-test that waits for a word."""

    def __init__(self, examiner: Examiner, asked: str) -> None:
        self.examiner, self.asked = examiner, asked

    @staticmethod
    def plan(asked: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return {}, {"greeting": f"says {asked}"}

    def before(self) -> None:
        """Nothing is asked."""

    def after(self) -> None:
        self.examiner.ledger.record("greeting", Finding.passed(self.asked))


def test_a_kind_of_the_self_test(
    add: Add[Any], load: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    class GreetingTest(SelfTest):
        """Its field."""

        greeting: str = ""
        """The word."""

    class GreetingRecipe(Recipe):
        """A recipe as it is then."""

        self_test: GreetingTest

    recipe = RECIPE.partition("[[self_test.commands]]")[0] + 'greeting = "hello"'
    with pytest.raises(UsageError, match=r"tiny\.toml:\d+: self_test\.greeting: unknown"):
        load(recipe)
    monkeypatch.setattr("backport.recipe.Recipe", GreetingRecipe)
    add(selftest.KINDS, "greeting", Greeting)
    asked = load(recipe).recipe.self_test
    planned = selftest.plan(asked)
    assert planned["greeting"] == "says hello"
    ledger = Ledger(planned)
    Greeting(SimpleNamespace(ledger=ledger), "hello").after()  # type: ignore[arg-type]  # what it takes of it
    assert ledger.verdict("greeting") is Verdict.PASS


def test_a_release(load: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="el99"):
        load(target="el99")
    text = (TARGETS / "f28.toml").read_text().replace('"f28"', '"el99"').replace('".fc28"', '".el99"')
    (tmp_path / "targets/el99.toml").write_text(text.replace("[keys.fedora-28]", "[keys.own-28]").replace(
        '["fedora-28"]', '["own-28"]'
    ))  # fmt: skip
    job = load(target="el99")
    assert ".el99" in render_config(job.target)
    assert "key.own-28" in Host().examine(job.site)
    shown = CliRunner().invoke(
        app, ["mock-config", "tiny", "-t", "el99", "-c", str(tmp_path / "backport.toml")]
    )
    assert (shown.exit_code, ".el99" in shown.output) == (0, True)
