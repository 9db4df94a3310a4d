"""A process that briefly outlives a search, however that ends, and kills what is left of its Ray.

    python -m nas.search.cluster.guard FOLDER OWNER    # stdin: a pipe whose other end the search, process OWNER, holds

It is needed because some of Ray's processes check only now and then whether their parent is alive, and then try to
report its death. When the pipe's other end is closed, as it is when the search is killed, the guard kills all processes
of this user except OWNER that work in FOLDER, which belongs to Ray. It then removes FOLDER and other abandoned folders.
It imports next to nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from nas.host.python import command_of, environment_variables
from nas.storage.scratch import clear_abandoned

ROUNDS, PAUSE_SECONDS = 20, 0.1  # several rounds, since a process may start while others are being killed


def start(folder: str) -> subprocess.Popen[bytes]:
    """Start a guard of Ray's folder; it acts when its standard input is closed, then ends."""
    return subprocess.Popen(
        command_of(__name__, [folder, os.getpid()]),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment_variables(),
        start_new_session=True,  # so that Ctrl-C does not reach it
    )


def main(folder: str, owner: int) -> int:
    """Wait for the end of the search, and clean up."""
    sys.stdin.buffer.read()
    quiet = 0
    for _ in range(ROUNDS):
        found = [each for each in working_in(folder) if each != owner]
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
        quiet = 0 if found else quiet + 1
        if quiet > 1:
            break
        time.sleep(PAUSE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    clear_abandoned()
    return 0


def working_in(folder: str) -> Iterator[int]:
    """Other processes of this user that have files of the folder open, or its name in their command."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if int(name) != os.getpid() and os.stat(f"/proc/{name}").st_uid == os.getuid() and _uses(name, folder):
                yield int(name)
        except OSError:  # the process is gone, or may not be inspected
            continue


def _uses(process: str, folder: str) -> bool:
    with open(f"/proc/{process}/cmdline", "rb") as command:
        if f"{folder}/".encode() in command.read():
            return True
    links = f"/proc/{process}/fd"
    return any(os.readlink(f"{links}/{each}").startswith(f"{folder}/") for each in os.listdir(links))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
