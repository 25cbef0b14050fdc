"""Let a process reach nothing but its own machine.

Imports the standard library only, because kernels load this file by itself.
"""

import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Any


class OfflineError(OSError):
    """A connection to another machine, while the network is shut off."""


def install() -> Callable[[], None]:
    """Make connections other than loopback and Unix sockets raise `OfflineError`; return a function to undo it.

    Compiled code is not seen from here, but glibc's `RES_OPTIONS`, which child processes inherit, keeps its resolver
    from asking any name server: torch would ask one for the name of 127.0.0.1 wherever two processes train.
    """
    options = os.environ.get("RES_OPTIONS")
    connect, connect_ex, sendto, getaddrinfo = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.socket.sendto,
        socket.getaddrinfo,
    )

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_outside(self, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_outside(self, address)
        return connect_ex(self, address)

    def guarded_sendto(self: socket.socket, data: Any, *rest: Any) -> int:
        _refuse_outside(self, rest[-1])
        return sendto(self, data, *rest)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> list:
        if not is_local(host):
            raise OfflineError(f"the network is shut off here: {host!r} was looked up")
        return getaddrinfo(host, *args, **kwargs)

    def uninstall() -> None:
        _set(connect, connect_ex, sendto, getaddrinfo)
        os.environ.pop("RES_OPTIONS")
        if options is not None:
            os.environ["RES_OPTIONS"] = options

    _set(guarded_connect, guarded_connect_ex, guarded_sendto, guarded_getaddrinfo)
    os.environ["RES_OPTIONS"] = "attempts:0"
    return uninstall


def is_local(host: Any) -> bool:
    """Tell whether a host means this machine; a name other than localhost is not looked up, and counts as outside."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost", "localhost.localdomain", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _set(connect: Any, connect_ex: Any, sendto: Any, getaddrinfo: Any) -> None:
    socket.socket.connect = connect  # type: ignore[method-assign]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
    socket.socket.sendto = sendto  # type: ignore[method-assign]
    socket.getaddrinfo = getaddrinfo


def _refuse_outside(sock: socket.socket, address: Any) -> None:
    inet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if inet and isinstance(address, tuple) and not is_local(address[0]):
        raise OfflineError(f"the network is shut off here: a connection to {address[0]}:{address[1]} was tried")
