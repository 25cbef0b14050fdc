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
    options, getaddrinfo = os.environ.get("RES_OPTIONS"), socket.getaddrinfo
    methods = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}

    def guarded(method: Callable) -> Callable:
        def call(self: socket.socket, *args: Any) -> Any:
            _refuse_outside(self, args[-1])  # the address
            return method(self, *args)

        return call

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> list:
        if not is_local(host):
            raise OfflineError(f"the network is shut off here: {host!r} was looked up")
        return getaddrinfo(host, *args, **kwargs)

    def uninstall() -> None:
        for name, method in methods.items():
            setattr(socket.socket, name, method)
        socket.getaddrinfo = getaddrinfo
        os.environ.pop("RES_OPTIONS")
        if options is not None:
            os.environ["RES_OPTIONS"] = options

    for name, method in methods.items():
        setattr(socket.socket, name, guarded(method))
    socket.getaddrinfo = guarded_getaddrinfo
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


def _refuse_outside(sock: socket.socket, address: Any) -> None:
    inet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if inet and isinstance(address, tuple) and not is_local(address[0]):
        raise OfflineError(f"the network is shut off here: a connection to {address[0]}:{address[1]} was tried")
