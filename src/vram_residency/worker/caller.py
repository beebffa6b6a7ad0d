"""Who calls, as far as the transport and the credentials tell; never what the request says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

Scope = Literal["read", "execute", "admin", "audit"]
ALL_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))
#: Where the doorkeeper puts the Caller: ``scope["state"][STATE_KEY]``.
STATE_KEY: Final = "caller"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may call.

    user_id: ``uid:1000``, ``client:<token name>`` or ``certificate:<subject>``. session_id: of a token its
    fingerprint, the first 6 hex digits of its SHA-256.
    """

    user_id: str
    auth_method: Literal["peer_uid", "bearer_token", "m_tls"]
    scopes: frozenset[Scope]
    ip: str | None = None
    session_id: str | None = None

    @property
    def actor(self) -> Mapping[str, str]:
        """The actor of audit entries (core.context.actor)."""
        found = {"user_id": self.user_id, "auth_method": self.auth_method}
        if self.ip is not None:
            found["ip"] = self.ip
        if self.session_id is not None:
            found["session_id"] = self.session_id
        return found


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What the transport knows: ``uid`` on a Unix socket, ``ip`` on TCP, ``subject`` with a certificate."""

    uid: int | None = None
    ip: str | None = None
    subject: str | None = None

    @property
    def address(self) -> str:
        """What strangers are counted by."""
        return f"uid:{self.uid}" if self.ip is None else self.ip


def caller_of(asgi_scope: Mapping[str, Any]) -> Caller | None:
    """The caller of a request, or None where no doorkeeper stands before the application."""
    found: Caller | None = asgi_scope.get("state", {}).get(STATE_KEY)
    return found
