"""Checks before anything is timed, and without loading Ray, that a search can train: that a cluster answers at its
address, or that a local Ray has a folder for its sockets.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile

from nas.storage import scratch
from space.errors import UserError

AUTO = "auto"
ADDRESS_VARIABLE = "RAY_ADDRESS"
EXAMPLES = "HOST:PORT such as 10.0.0.5:6379, as `ray start --head` prints it, or auto"
CONNECT_SECONDS = 8.0  # time to connect to a cluster's port, and as long again for its first bytes
LONGEST_SOCKET = 107  # bytes of a path; unix(7)
SOCKETS = len("/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store")  # below Ray's own folder
MISREAD = frozenset("'\\")  # characters that Ray misreads in the command that starts its workers

# HTTP/2 (RFC 9113, section 3.4): the first bytes of a client, with empty settings, and the type of the answering frame
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS_FRAME = 4


def require_short_folder() -> None:
    """Check that a local Ray can put its sockets under TMPDIR.

    Raises: UserError when the name of that folder is too long.
    """
    folder = tempfile.gettempdir()
    most = LONGEST_SOCKET - SOCKETS - scratch.LENGTH
    length = len(os.fsencode(folder))
    if length > most:
        raise UserError(
            f"expected a folder for temporary files with a name of at most {most} bytes, since Ray puts its sockets "
            f"there, got {length}: {folder}; set TMPDIR to a shorter one, such as TMPDIR=/tmp"
        )


def require_plain_paths() -> None:
    """Check that a local Ray can read the paths of this Python and of TMPDIR; spaces in them do no harm.

    Raises: UserError when one has characters that Ray misreads.
    """
    for what, path, advice in (
        ("a Python", sys.executable, "install this program in an environment in another folder"),
        ("a folder for temporary files", tempfile.gettempdir(), "set TMPDIR to another one, such as TMPDIR=/tmp"),
    ):
        if set(path) & MISREAD:
            raise UserError(
                f"expected {what} whose path has no single quotes and no backslashes, which Ray misreads, got {path}; "
                f"{advice}"
            )


def address_of(text: str) -> str:
    """The address `host:port` that a user's `--address` means, or `auto` for the cluster that this machine belongs to.

    Where RAY_ADDRESS is set, `auto` means its value, as for Ray itself.

    Raises: UserError for an invalid address, or when no Ray answers there.
    """
    name, address = "--address", text.strip()
    if address == AUTO and os.environ.get(ADDRESS_VARIABLE):
        name, address = ADDRESS_VARIABLE, os.environ[ADDRESS_VARIABLE].strip()
    if address == AUTO:
        return AUTO
    if "://" in address:
        raise UserError(
            f"{name}: expected {EXAMPLES}, got {address!r}: a search runs on a machine of the cluster, not through "
            "Ray's client or its dashboard; run it there, or make this machine a node: `ray start --address HOST:PORT`"
        )
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise UserError(f"{name}: expected {EXAMPLES}, got {address!r}")
    _require_answer(name, address, found[1].strip("[]"), int(found[2]))
    return address


def _require_answer(name: str, address: str, host: str, port: int) -> None:
    """Check that a server at the address speaks Ray's protocol: Ray itself would wait for minutes."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":  # the answer would be encrypted; Ray checks the address itself
        return
    advice = f"start Ray there with `ray start --head`, or leave out {name} to train on this machine alone"
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            connection.sendall(HELLO)
            answer = b""
            while len(answer) < 4 and (more := connection.recv(4 - len(answer))):
                answer += more
    except OSError as error:
        raise UserError(f"{name}: no Ray answers at {address} ({error.strerror or error}); {advice}") from None
    if len(answer) < 4 or answer[3] != SETTINGS_FRAME:
        raise UserError(f"{name}: the server at {address} is not Ray; {advice}")
