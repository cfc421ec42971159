"""The Jenkinsfile, by the linter's rules and against the command line and Makefile that it uses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from backport.commands import app
from tests.jenkins.declarative import cron_fault, lint
from tests.jenkins.groovy import Call, Text, parse

ROOT = Path(__file__).parents[2]
JENKINSFILE = (ROOT / "Jenkinsfile").read_text()
WHOLE = """
pipeline {
    agent any
    options { timeout(time: 1, unit: 'HOURS') }
    stages {
        stage('Build') {
            steps { sh 'make' }
        }
    }
    post { always { junit 'reports/*.xml' } }
}
"""


def pipeline() -> Call:
    return parse(JENKINSFILE)[0]


def calls(name: str) -> list[Call]:
    return [call for call in pipeline().walk() if call.name == name]


def shell_commands(script: str) -> list[list[str]]:
    """The simple commands of a shell script, without their redirections."""
    commands: list[list[str]] = [[]]
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = iter(lexer)
        for word in words:
            if set(word) <= set("<>"):
                next(words)
            elif set(word) <= set(";|&()"):
                commands.append([])
            else:
                commands[-1].append(word)
        commands.append([])
    return [command for command in commands if command]


def commands_of(program: str) -> list[list[str]]:
    scripts = [call.first_text("script") or "" for call in calls("sh")]
    return [command[1:] for script in scripts for command in shell_commands(script) if command[0] == program]


def parse_backport(arguments: list[str]) -> None:
    """Have the command line's own parser judge arguments, without running anything."""
    command = typer.main.get_command(app)
    rest = list(arguments)
    while subcommands := getattr(command, "commands", None):
        command = subcommands[rest.pop(0)]
    command.make_context(command.name, rest)


class TestJenkinsfile:
    def test_is_a_sound_declarative_pipeline(self) -> None:
        assert lint(JENKINSFILE) == []

    def test_runs_nightly_one_at_a_time_and_with_a_deadline(self) -> None:
        [cron] = calls("cron")
        hours = (cron.first_text("spec") or "").split()[1]
        assert hours == "H(2-4)"
        options = next(call for call in pipeline().body or [] if call.name == "options")
        assert {"disableConcurrentBuilds", "timeout", "buildDiscarder"} <= {
            call.name for call in options.body or []
        }

    def test_has_the_stages_in_order(self) -> None:
        assert [stage.first_text("name") for stage in calls("stage")] == ["Lint", "Unit", "Build", "Publish"]

    def test_only_the_last_stage_publishes(self) -> None:
        builds = [command for command in commands_of("backport") if command[0] == "build"]
        assert len(builds) == 2
        first, last = builds
        assert first[first.index("--until") + 1] == "self-test"
        assert "--until" not in last

    def test_archives_junit_and_reports(self) -> None:
        assert {junit.first_text("testResults") for junit in calls("junit")} == {
            "reports/unit.xml",
            "reports/build/junit.xml",
            "reports/publish/junit.xml",
        }
        [archive] = calls("archiveArtifacts")
        assert archive.first_text("artifacts") == "reports/**"

    def test_takes_the_key_from_credentials_as_a_file_and_removes_it(self) -> None:
        [credentials] = calls("withCredentials")
        [bindings] = credentials.positional
        assert isinstance(bindings, list)
        variables = {
            binding.named["variable"].value
            for binding in bindings
            if isinstance(binding, Call)
            and binding.name == "file"
            and isinstance(binding.named["variable"], Text)
        }
        assert variables == {"SIGNING_KEY", "SIGNING_PASSPHRASE"}
        [cleanup] = calls("cleanup")
        scripts = [step.first_text("script") or "" for step in cleanup.body or []]
        assert any('rm -rf "$KEY_FOLDER"' in script for script in scripts)

    @pytest.mark.parametrize("arguments", commands_of("backport"), ids=" ".join)
    def test_every_backport_command_is_one(self, arguments: list[str]) -> None:
        parse_backport(arguments)

    def test_every_make_target_exists(self) -> None:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wanted = [word for command in commands_of("make") for word in command]
        assert wanted
        assert set(wanted) <= set(targets)

    @pytest.mark.parametrize(
        "wrong",
        [
            "biuld openssl --target f28",
            "build openssl",
            "build openssl --target f28 --until packaging",
            "build openssl --target f28 --quick",
            "keys forget",
        ],
    )
    def test_a_wrong_command_would_be_found(self, wrong: str) -> None:
        with pytest.raises(Exception, match=r"biuld|target|packaging|--quick|forget"):
            parse_backport(wrong.split())


class TestLint:
    def test_accepts_a_small_pipeline(self) -> None:
        assert lint(WHOLE) == []

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ("agent any", "", "pipeline: no agent"),
            ("agent any", "agent some", "agent: any, none, or a block"),
            ("agent any", "agent any\n    agent none", "more than one agent"),
            ("agent any", "agent any\n    stage('x') { steps { sh 'x' } }", "unknown section 'stage'"),
            ("agent any", "agent { lable 'x' }", "unknown section 'lable'"),
            ("'HOURS'", "'HUORS'", "unit is one of"),
            ("time: 1", "time: 0", "whole number above 0"),
            ("time: 1, ", "", "timeout: needs time"),
            ("timeout(time: 1, unit: 'HOURS')", "timeOut(1)", "unknown option 'timeOut'"),
            ("timeout(time: 1, unit: 'HOURS')", "", "options: empty"),
            ("steps { sh 'make' }", "", "needs steps, stages, parallel or matrix"),
            ("steps { sh 'make' }", "sh 'make'", "unknown section 'sh'"),
            ("steps { sh 'make' }", "steps { }", "steps: empty"),
            ("sh 'make'", "shell 'make'", "unknown step 'shell'"),
            ("sh 'make'", 'sh "make ${TARGET}"', "use single quotes"),
            ("sh 'make'", "sh script: 'make', returnStaus: true", "unknown argument 'returnStaus'"),
            ("sh 'make'", "timeout(1) { }", "timeout: empty"),
            ("sh 'make'", "timeout(1)", "timeout: needs a block"),
            ("sh 'make'", "withCredentials([file(variable: 'K')]) { sh 'x' }", "file: needs credentialsId"),
            ("sh 'make'", "withCredentials([key('x')]) { sh 'x' }", "unknown binding"),
            (
                "junit '",
                "archiveArtifacts allowEmptyArchive: true, x: '",
                "archiveArtifacts: needs artifacts",
            ),
            ("always {", "allways {", "unknown section 'allways'"),
            ("stage('Build')", "stage()", "stages hold stage('name')"),
            (
                "stages {",
                "stages {\n        stage('Build') { steps { sh 'x' } }",
                "2 stages of the name 'Build'",
            ),
            ("options {", "triggers { cron('H 25 * * *') }\n    options {", "'25' is not within 0 to 23"),
            ("options {", "environment { A = readFile('x') }\n    options {", "A is not NAME = 'value'"),
        ],
    )
    def test_finds(self, before: str, after: str, message: str) -> None:
        assert before in WHOLE
        findings = lint(WHOLE.replace(before, after, 1))
        assert any(message in finding.message for finding in findings), findings

    @pytest.mark.parametrize(
        "broken", [WHOLE.replace("}", "", 1), WHOLE.replace("'make'", "'make"), WHOLE + "}"]
    )
    def test_finds_what_is_not_groovy(self, broken: str) -> None:
        assert lint(broken)

    def test_refuses_a_scripted_pipeline(self) -> None:
        assert lint("node { sh 'make' }") != []

    def test_names_the_line(self) -> None:
        [finding] = lint(WHOLE.replace("sh 'make'", "shell 'make'"))
        assert finding.line == 7


class TestCron:
    @pytest.mark.parametrize(
        "spec", ["H H(2-4) * * *", "H/15 * * * 1-5", "@daily", "0,30 2 1 1 *", "5 4 * * 7"]
    )
    def test_accepts(self, spec: str) -> None:
        assert cron_fault(spec) is None

    @pytest.mark.parametrize(
        "spec", ["", "H H * *", "60 * * * *", "* 4-2 * * *", "H(0-99) * * * *", "* * 0 * *"]
    )
    def test_refuses(self, spec: str) -> None:
        assert cron_fault(spec) is not None
