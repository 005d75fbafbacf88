# SPDX-License-Identifier: Apache-2.0
"""What this program answers under the name of skopeo, which it has for programs that start that one as their proxy."""

from collections.abc import Sequence

from . import __version__
from .errors import UsageError, quote_own
from .flags import flag, level
from .log import PROGRAM
from .options import BY_NAME, Command


def require_own_command(arguments: Sequence[str]) -> None:
    """Return unless a command of skopeo is asked for, with whatever options it has there; none of ours is by its name.

    Raises UsageError.
    """
    pending = list(reversed(arguments))
    while pending:
        argument = pending.pop()
        if not argument.startswith("-"):
            if argument == Command.JSON:
                return
            raise UsageError(
                f"this is {PROGRAM} {__version__} under the name skopeo: expected {Command.JSON}, the one command that"
                f" it has there, found {quote_own(argument)}; install skopeo for the others"
            )
        option = BY_NAME.get(argument[2:])
        if option is not None and option.parse not in (flag, level) and pending:
            pending.pop()
