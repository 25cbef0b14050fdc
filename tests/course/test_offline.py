"""The network guard: nothing leaves, everything at home works, and it can be taken off."""

import os
import platform
import socket
import subprocess
import sys
import urllib.request

import pytest

from timenet_lib.course import offline


@pytest.fixture
def guard():
    uninstall = offline.install()
    yield
    uninstall()


@pytest.mark.usefixtures("guard")
def test_connections_to_other_machines_raise():
    for family, address in [(socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80, 0, 0))]:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            with pytest.raises(offline.OfflineError, match="shut off"):
                sock.connect(address)
            with pytest.raises(offline.OfflineError, match="shut off"):
                sock.connect_ex(address)
        with socket.socket(family, socket.SOCK_DGRAM) as sock, pytest.raises(offline.OfflineError, match="shut off"):
            sock.sendto(b"x", address)


@pytest.mark.usefixtures("guard")
def test_names_are_not_looked_up():
    with pytest.raises(offline.OfflineError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(OSError, match="shut off"):
        urllib.request.urlopen("https://example.org", timeout=1)


ASK = """
import time, _socket
start = time.monotonic()
try:
    _socket.getaddrinfo("name.invalid", 80)
except _socket.gaierror as error:
    assert error.errno == _socket.EAI_AGAIN, error  # not: a name server does not know it
assert time.monotonic() - start < 2  # nor: no name server answered
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to ask no name server")
@pytest.mark.usefixtures("guard")
def test_compiled_code_asks_no_name_server():
    done = subprocess.run([sys.executable, "-S", "-c", ASK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("guard")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_works(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = (host, server.getsockname()[1])
        with socket.create_connection(address, timeout=5) as client:
            client.sendall(b"x")


@pytest.mark.usefixtures("guard")
def test_unix_sockets_work(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)


@pytest.mark.parametrize("options", [None, "timeout:1"])
def test_uninstall_puts_everything_back(monkeypatch, options):
    monkeypatch.delenv("RES_OPTIONS")
    if options is not None:
        monkeypatch.setenv("RES_OPTIONS", options)
    before = socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto, socket.getaddrinfo
    offline.install()()
    assert (socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto, socket.getaddrinfo) == before
    assert os.environ.get("RES_OPTIONS") == options


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.53", True),
        ("::1", True),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
        (b"localhost", True),
        ("", True),
    ],
)
def test_what_counts_as_this_machine(host, local):
    assert offline.is_local(host) is local
