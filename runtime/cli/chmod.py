"""`uml chmod`: permissions inside of images and trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runtime.inspect.changing import WritableTree
    from runtime.inspect.paths import Node
    from umlfs.filesystem import SetAttr


class ModeCommand(click.Command):
    """A MODE may begin with a dash (`-x`), as options do; with two begin only options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        known = {name for option in self.get_params(ctx) for name in option.opts}
        before = args[: args.index("--")] if "--" in args else args
        ctx.ignore_unknown_options = all(word in known for word in before if word.startswith("--"))
        return super().parse_args(ctx, args)


@click.command("chmod", cls=ModeCommand)
@click.argument("mode")
@click.argument("paths", metavar="SRC[:PART]:PATH...", nargs=-1, required=True)
@click.option("-R", "--recursive", is_flag=True, help="Directories, with all that is in them.")
def command(mode: str, paths: tuple[str, ...], recursive: bool) -> None:
    """Change permissions inside of images, humfs trees or machines. MODE is as for chmod(1): 644, u+x, go-rwx.

    \b
    Example:
      uml chmod 600 disk.img:/etc/ssh/ssh_host_rsa_key
      uml chmod -R a+rX disk.img:/srv
    """
    from runtime.cli.changing import change
    from runtime.inspect import changing, modes
    from umlfs.filesystem import SetAttr

    places = changing.places(paths)
    modes.check(mode)

    def changes(node: Node) -> SetAttr | None:
        if node.is_link:
            return None
        return SetAttr(mode=modes.applied(mode, changing.mode_of(node), directory=node.is_directory))

    async def work(tree: WritableTree) -> None:
        for place in places:
            await tree.change(place.inside, changes, recursive=recursive)

    change(places, work)
