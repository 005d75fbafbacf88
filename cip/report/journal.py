# SPDX-License-Identifier: Apache-2.0
"""What an operator looks for, as entries of the systemd journal (systemd's "Native Journal Protocol").

Of the events only those that tell of a fault or a decision become entries: failed, retry, source, throttled, policy.
Each kind has a MESSAGE_ID of its own that never changes, so `journalctl MESSAGE_ID=…` finds it on a thousand machines.
An entry is one datagram and is never waited for: what the journal does not take at once is dropped.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Mapping

from .. import log
from ..errors import UsageError, system_reason

SOCKET = "/run/systemd/journal/socket"
TEXT_LIMIT = 8 * 1024  # bytes of one field
# What stays as it is for ever and is used for nothing else, drawn once; priorities are those of syslog(3).
KINDS: Mapping[str, tuple[str, int, str]] = {
    "failed": ("3f3db2094dc6bdafa2cb0f6130d9962f", 3, "{detail}"),
    "retry": ("30585ea6d6e0c457471ac2f15be1a23b", 4, "{code}, tried again in {wait} s"),
    "source": ("11436bd523cb355b67ad022952993115", 4, "continued at {to}, not {from}: {reason}"),
    "throttled": ("9a26dbe9d5c6a8c920bdb0a9cbce1d78", 4, "asked us to wait {wait} s"),
    "accepted": ("5dacff84560781bae5b2a89a8e5a5544", 6, "accepted by the policy, scope {scope}"),
    "refused": ("0847959f96d792f7ccf11e8e6a14e7b1", 3, "refused by the policy, scope {scope}"),
}
_FIELDS = {"code": "CIP_CODE", "host": "CIP_HOST", "digest": "CIP_DIGEST", "image": "CIP_IMAGE", "phase": "CIP_PHASE"}


class Journal:
    """An open way to the journal; the caller closes it. Raises UsageError where there is none."""

    def __init__(self, path: str = SOCKET) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise UsageError(f"--journal: {path}: expected a running journal, found: {system_reason(error)}") from error
        self._dropped = 0

    def close(self) -> None:
        """Close the socket, and say how many entries were dropped."""
        self._socket.close()
        if self._dropped:
            log.warning("the journal did not take %d entries", self._dropped)

    def emit(self, event: str, **members: object) -> None:
        """Takes an event; never blocks, never raises."""
        kind = event if event != "policy" else "accepted" if members.get("accepted") else "refused"
        if kind not in KINDS:
            return
        message_id, priority, sentence = KINDS[kind]
        about = members.get("image") or members.get("digest") or members.get("host") or "image"
        fields = {
            "MESSAGE": f"{about}: {sentence.format_map(defaultdict(lambda: None, members))}",
            "MESSAGE_ID": message_id,
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": log.PROGRAM,
            "SYSLOG_PID": str(os.getpid()),
        }
        fields.update((name, str(members[key])) for key, name in _FIELDS.items() if members.get(key) is not None)
        try:
            self._socket.send(encode(fields))
        except OSError:  # full, gone, or the entry is too large for it
            self._dropped += 1


def encode(fields: dict[str, str]) -> bytes:
    """One entry: `NAME=value`, or for a value of several lines its length in 64 bits, least byte first."""
    parts = []
    for name, text in fields.items():
        value = text.encode("utf-8", "replace")[:TEXT_LIMIT]
        if b"\n" in value:
            parts.append(name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        else:
            parts.append(name.encode() + b"=" + value + b"\n")
    return b"".join(parts)
