"""`uml umount`: end a mount."""

from __future__ import annotations

import click


@click.command("umount")
@click.argument("mountpoints", nargs=-1, required=True, metavar="MOUNTPOINT...")
@click.option("--lazy", is_flag=True, help="Take it away even if it is in use.")
def command(mountpoints: tuple[str, ...], lazy: bool) -> None:
    """Unmount what 'uml mount' mounted, and wait until all that was written has arrived.

    \b
    Example:
      uml umount /mnt/project
    """
    from runtime.mounts.table import umount

    for mountpoint in mountpoints:
        umount(mountpoint, lazy=lazy)
