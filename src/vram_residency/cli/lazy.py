"""Groups whose commands are imported when they are called, so that ``vram --help`` imports none."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A click group over a table: command name → (module, the one line that describes it).

    The command is the attribute of its module that bears its name, with ``_`` for ``-``. The line stands
    in the table, so that the list of commands costs no import; a test keeps it equal to the command's own.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None where there is no such name."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module, _ = self.table[cmd_name]
        command: click.Command = getattr(import_module(module), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and name the nearest command where there is none of that name."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            from difflib import get_close_matches

            matches = get_close_matches(name, self.list_commands(ctx), n=1)
            ctx.fail(f"there is no command '{name}'." + (f" Did you mean '{matches[0]}'?" if matches else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])
        del ctx
