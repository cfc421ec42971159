"""What the commands about a target's published folder start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backport.repository.clients import SiteKeys
    from backport.repository.generations import Generation, TargetFolder
    from backport.site import Site
    from backport.target import Target


@dataclass(frozen=True, kw_only=True)
class Place:
    """A target's folder in one channel, with the settings that it belongs to."""

    site: Site
    target: Target
    folder: TargetFolder

    def other(self, channel: str) -> TargetFolder:
        """The same target's folder in another channel. Raises UsageError."""
        from backport.repository.generations import TargetFolder
        from backport.site import check_channel

        check_channel(channel, self.site)
        return TargetFolder.of(self.site.paths.repository, self.target.name, channel)

    def id_of(self, generation: str) -> str:
        """The id of the generation that is meant: by it, a beginning of it, or ``latest``.

        Raises UsageError for none, or several.
        """
        from backport.commands.options import chosen
        from backport.repository.changes import list_generations

        known = [one.id for one in list_generations(self.folder)]
        listed = f"backport repo list --target {self.target.name}"
        return chosen(generation, known, what="generation", listed=listed)

    def url(self, keys: SiteKeys | None) -> str | None:
        """The URL of the channel's folder as clients see it; None on a host that neither publishes nor says
        it in its site file."""
        from backport.repository.clients import channel_url

        return channel_url(self.site.url, self.folder.channel) if keys or self.site.base_url else None

    def keys(self) -> SiteKeys | None:
        """The keys of the site; None where this user or host has none. Raises SignError for unusable ones."""
        from backport.repository.clients import site_keys

        try:
            there = self.site.signing.gnupghome.is_dir()
        except OSError:
            there = False
        return site_keys(self.site.signing) if there else None

    def generation(self, generation: str | None) -> Generation:
        """A generation's record; default: of the one that readers see. Raises PublishError."""
        from backport.errors import PublishError

        record = self.folder.load(self.id_of(generation)) if generation else self.folder.current_generation()
        if record is None:
            raise PublishError(
                f"{self.folder.path}: nothing is published for {self.target.name}",
                hint=f"`backport build RECIPE --target {self.target.name}` publishes",
            )
        return record


def place_of(target: str, channel: str | None, config: Path | None) -> Place:
    """The folder that the options name. Raises UsageError."""
    from backport.repository.generations import TargetFolder
    from backport.site import check_channel, load_site
    from backport.target import load_target

    site = load_site(config)
    channel = channel or site.channel
    check_channel(channel, site)
    loaded = load_target(site.paths.targets, target)
    return Place(
        site=site, target=loaded, folder=TargetFolder.of(site.paths.repository, loaded.name, channel)
    )
