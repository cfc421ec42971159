"""The one way by which clients come to see a new generation.

::

    plan   what it is to be: `publish`, `promote` and `withdraw` make different ones      plan.py
    write  packages and metadata, in a folder whose name begins with a dot                write.py
    sign   the metadata, the evidence and the record                                      write.py
    check  all that is new is read back, and brought to the disk                          check.py
    prove  a client installs from it; that is recorded                                    proof.py
    name   the folder is called by its id: what is called like a generation was proven
    switch that is recorded, and one rename leads clients to it

Until the last rename any failure, even a power cut, leaves clients what they had; after it nothing is a
failure any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from backport import repodata
from backport.artifacts import Check
from backport.errors import BackportError, PublishError
from backport.files import scratch_folder, sync
from backport.repository import grace
from backport.repository.check import bring_to_disk, check
from backport.repository.clients import write_client_files
from backport.repository.generations import Generation
from backport.repository.history import Action
from backport.repository.overview import renew
from backport.repository.place import Place
from backport.repository.plan import Plan
from backport.repository.proof import Exhibit, Prover
from backport.repository.write import Links, sign, write
from backport.signing.key import open_key


def release(place: Place, plan: Plan, prove: Prover) -> tuple[Generation, tuple[Check, ...]]:
    """Make the generation of a plan and lead clients to it; gives its record, and what ``prove`` found.

    For the lock's holder alone. Raises PublishError when it does not read back, a package changed, or a check
    of ``prove`` fails, SignError when it cannot be signed, HostError when this host cannot write it, OSError,
    what ``prove`` raises. Nothing is left of it then, and clients see what they saw before.
    """
    repodata.compression_of(plan.record.compression)
    folder = place.folder
    with scratch_folder(folder.generations, ".new-") as scratch:
        place.progress.note(f"linking {plan.record.packages} packages into a new generation")
        record, links = _write_and_sign(place, plan, scratch)
        check(plan, scratch)
        bring_to_disk(scratch, links.linked)
        exhibit = Exhibit(
            folder=folder, record=record, content=scratch, url=place.url, packages=plan.install,
            provided=plan.provided,
        )  # fmt: skip
        checks = show(place, exhibit, prove, beside=plan.before, hold=plan.hold)
        scratch.rename(folder.folder_of(record.id))
        sync(folder.generations)
    if links.copied:
        place.progress.note(f"copied {len(links.copied)} files: the file system has no hard links")
    try:
        switch(place, record.id, action=plan.action, hold=plan.hold, release=plan.release)
    except BaseException:
        _remove(place, record.id)
        raise
    renew_beside(place)
    return record, checks


def _write_and_sign(place: Place, plan: Plan, scratch: Path) -> tuple[Generation, Links]:
    """The packages are linked while the key is made ready."""
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write, plan, scratch, place.target)
        with open_key(place.signing, digest=place.target.signature_digest) as signer:
            if signer.key.fingerprint != plan.record.fingerprint:
                raise PublishError(
                    f"the packages are signed by {plan.record.fingerprint}, the site's key is "
                    f"{signer.key.fingerprint}",
                    hint="sign the packages again: `backport build --force`",
                )
            links = writing.result()
            return sign(plan, scratch, place, links=links, signer=signer), links


def show(
    place: Place,
    exhibit: Exhibit,
    prove: Prover,
    *,
    beside: Generation | None,
    hold: Collection[str] = (),
) -> tuple[Check, ...]:
    """Let ``prove`` look at a generation, with the files for clients that it and the one ``beside`` it need,
    and record that it passed.

    What is in ``hold`` is held from now on: whoever is killed now has done so, too, since the next command
    completes the switch. Raises PublishError for the first check that fails.
    """
    folder, record = place.folder, exhibit.record
    write_client_files(place, [record, beside] if beside else [record])
    checks = prove(exhibit)
    require_proven(checks)
    if not folder.is_proven(record.id):
        folder.mark_proven(record.id, place.signing, hold=hold)
    return checks


def require_proven(checks: Sequence[Check]) -> None:
    """Raises PublishError for the first check that keeps a generation from clients."""
    if not checks:
        raise ValueError("without a check nothing is proved")
    if failed := [check for check in checks if check.stops]:
        raise PublishError(
            f"a client cannot install what is to be published: {failed[0].title}: {failed[0].found}; "
            "clients see what they saw before",
            hint=failed[0].advice or None,
        )


def switch(
    place: Place,
    generation: str,
    *,
    action: Action,
    hold: Collection[str] = (),
    release: Collection[str] = (),
) -> None:
    """Let clients see a generation that is there, with what those who have just read another may still ask
    for. Raises PublishError, SignError, OSError; clients then see what they saw before."""
    grace.share(place.folder, generation, place.target)
    place.folder.switch(generation, action=action, signing=place.signing, hold=hold, release=release)


def _remove(place: Place, generation: str) -> None:
    """Remove a generation to which nobody could be led."""
    folder = place.folder
    with suppress(OSError, BackportError):
        if folder.current_id() != generation:
            folder.remember("prune", None, place.signing, generations=(generation,))
            folder.remove(generation)


def renew_beside(place: Place) -> None:
    """Renew what lies beside the generations after a switch: clients see that already, so that it cannot
    fail any more."""
    try:
        renew(place)
    except (BackportError, OSError) as problem:
        place.progress.note(
            f"clients see it, but what lies beside could not be renewed, `backport repo gc` does: {problem}"
        )
