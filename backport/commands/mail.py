"""Commands about mail servers: maillog, probe."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backport.commands.options import (
    ConfigOption,
    JunitOption,
    RecipeArgument,
    Result,
    TargetOption,
    TranscriptOption,
    write_result,
)
from backport.errors import UsageError

if TYPE_CHECKING:
    from backport.commands.probe_input import Request

app = typer.Typer()


@app.command()
def maillog(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Exim main logs, plain or compressed; - for stdin.")
    ],
    direction: Annotated[
        Literal["in", "out"] | None, typer.Option(help="Only what came in, or what went out; default: both.")
    ] = None,
    below: Annotated[
        Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"] | None,
        typer.Option("--below", "--older-than", help="Only peers that use something weaker than this."),
    ] = None,
    current: Annotated[
        bool, typer.Option("--current", help="Leave out what a peer has stopped using since.")
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Leave out what is older: 2026-01-31."),
    ] = None,
    sort: Annotated[
        Literal["tls", "messages", "last-seen", "peer"],
        typer.Option(help="The order; tls: the weakest first."),
    ] = "tls",
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="How many to list; default: 50, in JSON all."),
    ] = None,
) -> Result:
    """List the peers of an Exim by the TLS that they still use, from its main log.

    A message counts once for a peer, however many recipients it had there. Local deliveries do not count.
    A file that is damaged, or is no such log, is told, and the others are read; the exit code is 2 then.

    \b
    Examples:
        backport maillog /var/log/exim/main.log*
        backport maillog --below TLSv1.2 --current --direction in /var/log/exim/main.log
        zstd -dc main.log.1.zst | backport maillog --json -
    """
    from rich.text import Text

    from backport.commands.maillog_view import arranged, shown
    from backport.commands.terminal import TerminalProgress
    from backport.maillog import read
    from backport.maillog.tally import Direction, Tally, Tls

    tally = Tally(since=since.date() if since else None)
    with TerminalProgress(doing="reading") as progress:
        problems = read(files, tally, progress=progress)
    report = tally.report(
        directions=[Direction(direction)] if direction else list(Direction),
        below=Tls(below) if below else None,
        current=current,
    )
    report = replace(arranged(report, sort), unread=[problem.message for problem in problems])
    return Result(
        replace(report, peers=report.peers[:limit]),
        shown(report, limit=limit or 50),
        exit_code=problems[0].exit_code if problems else 0,
        notes=[Text(f"error: {problem.message}\n{problem.hint or ''}") for problem in problems],
    )


class MailPolicy(StrEnum):
    """The rules of Exim's configuration that can be chosen."""

    REQUIRE_HELO = "require-helo"
    HELO_BOTNET = "helo-botnet"
    SENDER_BOTNET = "sender-botnet"
    SENDER_BOTNET_COARSE = "sender-botnet-coarse"
    REQUIRE_TLS_INBOUND = "require-tls-inbound"
    REQUIRE_TLS_OUTBOUND = "require-tls-outbound"


@app.command("exim-config")
def exim_config(
    policy: Annotated[
        list[MailPolicy] | None,
        typer.Option("--policy", metavar="NAME", help="A rule to have in it; may be repeated; default: all."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="The server's name; default: Exim finds it out.")
    ] = None,
    certificate: Annotated[
        Path, typer.Option(metavar="FILE", help="Where Exim finds its certificate, with the intermediates.")
    ] = Path("/etc/pki/tls/certs/exim.pem"),
    key: Annotated[Path, typer.Option(metavar="FILE", help="Where Exim finds the certificate's key.")] = Path(
        "/etc/pki/tls/private/exim.pem"
    ),
    staple: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The OCSP response to staple, in DER; default: none.")
    ] = None,
    keep_trying: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long require-tls-outbound tries a host again with which TLS fails, such as 2h; "
            "default: the mail comes back at once.",
        ),
    ] = None,
) -> None:
    """Print a configuration for Exim 4.91 or later, each rule with a comment that explains it.

    It is the one that the self-test proves rule by rule.

    The rules: require-helo, helo-botnet, sender-botnet or its coarse form sender-botnet-coarse,
    require-tls-inbound, require-tls-outbound.

    \b
    Examples:
        backport exim-config > exim.conf && exim -C "$PWD/exim.conf" -bV
        backport exim-config --policy require-tls-inbound --policy require-tls-outbound --keep-trying 2h
    """
    from backport.selftest.configuration import ALL_POLICIES, Policy, Server, render_configuration

    server = Server(
        host=host,
        certificate=str(certificate),
        private_key=str(key),
        ocsp_answer=str(staple) if staple else None,
    )
    policies = {Policy(name) for name in policy} if policy else ALL_POLICIES
    purpose = "as the self-test proves it"
    typer.echo(render_configuration(policies, server, purpose=purpose, keep_trying=keep_trying), nl=False)


@app.command()
def selftest(
    recipe: RecipeArgument,
    target: TargetOption,
    repo: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The target's folder, which holds backport.repo; default: what is published here.",
        ),
    ] = None,
    junit: JunitOption = None,
    transcript: TranscriptOption = None,
    config: ConfigOption = None,
) -> Result:
    """Examine what is published, in a clean root of the target: handshakes, library, policy, mail.

    Exit code 7: a check failed.

    \b
    Examples:
        backport selftest openssl --target f28
        backport selftest openssl --target f28 --repo https://repo.example.org/f28 --junit selftest.xml
    """
    from backport.commands.selftest_run import as_document, as_junit, checked_url, run, shown
    from backport.commands.terminal import TerminalProgress
    from backport.runs.job import load_job

    job, url = load_job(recipe, target, config), checked_url(repo)
    with TerminalProgress() as progress:
        examined = run(job, url=url, progress=progress)
    if junit:
        write_result(junit, as_junit(examined))
    if transcript:
        write_result(transcript, examined.examination.transcript)
    return Result(as_document(examined), shown(examined), exit_code=0 if examined.passed else 7)


@app.command()
def probe(
    server: Annotated[
        str | None,
        typer.Argument(metavar="HOST[:PORT]", help="Name or address; the port is 25, with --direct-tls 465."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A mail domain instead: all its exchangers, DANE, MTA-STS and TLS-RPT."
        ),
    ] = None,
    resolver: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS[:PORT]",
            help="The validating resolver that is asked about a domain; default: the system's, whose word "
            "on signatures counts where it is on this host.",
        ),
    ] = None,
    servername: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name that the certificate must bear; default: HOST."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trusted roots, in PEM; default: the system's.")
    ] = None,
    crl: Annotated[Path | None, typer.Option(metavar="FILE", help="Revocation lists, in PEM or DER.")] = None,
    direct_tls: Annotated[
        bool, typer.Option("--direct-tls", help="TLS from the first octet on, without STARTTLS.")
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(metavar="PROTOCOL[:SUITE]", help="What a default client must get; anything else fails."),
    ] = None,
    staple: Annotated[bool, typer.Option("--staple", help="An OCSP response must be stapled.")] = False,
    revocation: Annotated[
        bool,
        typer.Option(
            "--revocation/--no-revocation", help="Ask lists and responders that certificates point to."
        ),
    ] = True,
    profile: Annotated[
        Literal["modern", "intermediate", "ncsc-2025", "bcp195"] | None,
        typer.Option(help="Hold the server against a recommendation; each verdict names its paragraph."),
    ] = None,
    style: Annotated[
        Literal["compact", "checktls"],
        typer.Option(help="The transcript's form; checktls: each line of a reply by itself, names in full."),
    ] = "compact",
    all_addresses: Annotated[
        bool, typer.Option("--all-addresses", help="Examine each address of the name, not the first alone.")
    ] = False,
    helo: Annotated[
        str | None, typer.Option(metavar="NAME", help="How to greet; default: this host's name.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, max=600, help="For the whole examination.")
    ] = 60,
    junit: JunitOption = None,
    transcript: TranscriptOption = None,
) -> Result:
    """Examine a mail server's TLS from outside, or all servers of a mail domain.

    It opens at most eight connections to a server, waits for every reply and sends no mail. Exit code 1: a
    check failed; 2: a name, port or file that was given is wrong.

    \b
    Examples:
        backport probe mail.example.org
        backport probe mail.example.org --expect TLSv1.3:TLS_AES_256_GCM_SHA384
        backport probe [2001:db8::25]:465 --direct-tls --servername mail.example.org --json
        backport probe --domain example.org --resolver 127.0.0.1
    """
    from backport.commands.probe_input import Request
    from backport.probe.profiles import Profile
    from backport.probe.transcript import Style

    if (server is None) == (domain is None):
        raise UsageError("one server or one domain is examined", hint="HOST, or --domain NAME")
    request = Request(
        server=server or "",
        servername=servername,
        ca=ca,
        crl=crl,
        direct_tls=direct_tls,
        expect=expect,
        staple=staple,
        revocation=revocation,
        helo=helo,
        style=Style(style),
        profile=Profile(profile) if profile else None,
        timeout=timeout,
    )
    if domain is not None:
        return _probe_domain(request, domain, resolver, junit=junit, transcript=transcript)
    from backport.commands.probe_view import as_document, as_junit, run, shown

    probed = run(request, all_addresses=all_addresses)
    if junit:
        write_result(junit, as_junit(probed))
    if transcript:
        write_result(transcript, "\n".join(one.report.transcript for one in probed))
    documents = [as_document(one) for one in probed]
    return Result(
        documents if all_addresses else documents[0],
        (line for one in probed for line in shown(one)),
        exit_code=0 if all(one.passed for one in probed) else 1,
    )


def _probe_domain(
    request: Request, domain: str, resolver: str | None, *, junit: Path | None, transcript: Path | None
) -> Result:
    from backport.commands.domain_view import domain_document, domain_junit, run, shown

    probed = run(request, domain, resolver)
    if junit:
        write_result(junit, domain_junit(probed))
    if transcript:
        write_result(transcript, probed.transcript())
    return Result(domain_document(probed), shown(probed), exit_code=0 if probed.passed else 1)
