"""The options of a connection, which have one meaning wherever a connection is made."""

from __future__ import annotations

from typing import Any, Literal

from ._inbox import Inbox
from ._observer import Observer
from .codec import Codec

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

__all__ = ["OnInvalid", "OnOversize", "check_options", "check_server_context"]

OnOversize = Literal["raise", "skip"]
OnInvalid = Literal["raise", "resync"]


def check_options(
    codec: Codec[Any],
    *,
    message_timeout: float | None,
    idle_timeout: float | None,
    on_oversize: OnOversize,
    on_invalid: OnInvalid,
    observer: object,
) -> dict[str, Any]:
    """Check the options of connections that will be made.

    Returns:
        The options by their names, the observer as `Observer`, as each connection takes them.

    Raises:
        TypeError, ValueError: An option is invalid, or not for this codec.
    """
    options: dict[str, Any] = {
        "message_timeout": message_timeout,
        "idle_timeout": idle_timeout,
        "on_oversize": on_oversize,
        "on_invalid": on_invalid,
    }
    Inbox(codec, **options)
    return {**options, "observer": Observer.of(observer)}


def check_server_context(context: object, address: object, is_tls: bool) -> None:
    """Check the argument `ssl` of a function that listens.

    Args:
        context: The argument.
        address: The address as the caller gave it.
        is_tls: Whether it is a ``tls://`` URL.

    Raises:
        TypeError: The argument is neither a context nor None.
        ValueError: It is the context of a client, or None with a ``tls://`` URL.
    """
    if context is None:
        if is_tls:
            raise ValueError(f"{address!r} needs a certificate: give the server's context as ssl=")
        return
    remedy = (
        "make it by ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), and load the certificate"
        " by its load_cert_chain()"
    )
    if ssl is None or not isinstance(context, ssl.SSLContext):
        raise TypeError(
            "ssl must be an ssl.SSLContext with the server's certificate, or None,"
            f" not {context!r:.80}; {remedy}"
        )
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(f"ssl is the context of a client, a server needs its own; {remedy}")
