"""Processes on a Ray cluster that work together and end together: `nas.runs.processes` across several machines.

Each process runs on a node with free resources, and has its own processors and GPU. The processes meet at a store that
the first one opens on its node, at the address by which the cluster knows that node and at no other; on loopback if one
machine runs them all. The output of the first process is printed here.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from nas.data.share import WHOLE, Share
from nas.errors import HaltedError
from nas.host.words import counted, one_line
from nas.latency.machine import lane
from nas.latency.worker.replies import WorkerError, accept, refusal
from nas.runs.processes import Work, interfaces, speak_for_all, work_in_group
from nas.search.cluster.configured_ray import PlacementGroupSchedulingStrategy, ray
from nas.search.cluster.nodes import Resources, is_lost
from nas.search.cluster.workers import workers_of
from nas.search.search import Workers
from space.errors import UserError

GRACE_SECONDS = 60.0  # time for Ray to find out that a node is lost, which processes on other nodes notice at once
PRINT_SECONDS = 0.5  # interval at which output is fetched
WAIT_SECONDS = 20.0  # time to wait for free resources before a line says so
LOOPBACK = "127.0.0.1"
GET_ADDRESS, GET_MASK = 0x8915, 0x891B  # requests for an interface's address and mask; netdevice(7)


def members_of(nodes: Sequence[Resources], wanted: str, device: str | None) -> Workers:
    """The processes that `--processes` asks for: a number, or `gpus` for one on each GPU. `device` is that of --device.

    Raises: UserError where the nodes have no room for them.
    """
    if device not in (None, "cpu", "cuda"):
        raise UserError(
            f"--device: expected cpu or cuda together with --address, got {device}; each node numbers its own devices"
        )
    if device == "cpu":
        nodes = [{**node, "GPU": 0} for node in nodes]
    count = 0 if wanted == "gpus" else int(wanted)
    found = replace(workers_of(nodes, count), joined=True)
    if found.device == "cpu" and (device == "cuda" or not count):
        raise UserError(
            "--processes: expected GPUs, but no node of the cluster offers one; give a number, to train on CPUs"
        )
    if found.concurrent < count:
        raise UserError(
            f"--processes: expected room for {count} processes, but the cluster's nodes have room for "
            f"{found.concurrent}; give {found.concurrent}, or have another node join"
        )
    return found


def work_on_nodes(work: Work, members: Workers) -> None:
    """Do `work` in these processes on the connected cluster, each with its share, and wait for all.

    Raises: the first UserError or OSError of a process; HaltedError when a process was killed or its node is lost;
    WorkerError for any other error.
    """
    bundle = {"CPU": members.threads, "GPU": int(members.device == "cuda")}
    group = ray.util.placement_group([bundle] * members.concurrent, strategy="PACK")
    try:
        with contextlib.suppress(ray.exceptions.GetTimeoutError):
            ray.get(group.ready(), timeout=WAIT_SECONDS)
        if not group.wait(0):
            each = f"{counted(members.threads, 'processor')}{' and a GPU' if bundle['GPU'] else ''}"
            needed = f"{members.concurrent} x {each}"
            print(f"waiting for {needed} of the cluster to be free; see `ray status`", file=sys.stderr, flush=True)
            ray.get(group.ready())
        _Members(group, bundle).do(work, on_gpus=members.device == "cuda")
    finally:
        ray.util.remove_placement_group(group)


class _Members:
    """The processes, in the order of their lanes: all trainings on a cluster enter the lanes in this order."""

    def __init__(self, group: Any, bundle: dict[str, int]) -> None:
        member: Any = ray.remote(_Member)
        members = [
            member.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle["GPU"],
                max_concurrency=2,  # one thread works, the other returns what is printed
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            ).remote()
            for index in range(group.bundle_count)
        ]
        try:
            places: list[tuple[str, str, str]] = ray.get([each.place.remote() for each in members])
        except ray.exceptions.RayError as error:
            raise OSError(f"a process on a node of the cluster does not start: {_words(error)}") from None
        order = sorted(range(len(members)), key=lambda index: places[index])
        lanes = sorted({each for each, _, _ in places})
        self._members = [members[index] for index in order]
        self._machines = tuple(lanes.index(places[index][0]) for index in order)
        self._nodes = [places[index][1] for index in order]
        self._addresses = [places[index][2] for index in order]

    def do(self, work: Work, *, on_gpus: bool) -> None:
        """See `work_on_nodes`."""
        count, alone = len(self._members), len(set(self._addresses)) == 1
        addresses = [LOOPBACK] * count if alone else self._addresses
        try:
            port = 0 if count == 1 else ray.get(self._members[0].open.remote(addresses[0]))
            running = {}
            for rank, member in enumerate(self._members):
                share = WHOLE if count == 1 else Share(rank=rank, count=count, machines=self._machines)
                place = (addresses[0], port, addresses[rank])
                running[member.take_part.remote(work, share, place, on_gpus)] = rank
            self._wait(running)
        except ray.exceptions.RayError as error:
            raise self._halted(error, 0) from None
        finally:
            for member in self._members:
                ray.kill(member)

    def _wait(self, running: dict[Any, int]) -> None:
        """Wait for all processes, whose ranks are given by task.

        Raises: the reason why they cannot go on. A process that loses its connection to a lost one fails as well; that
        is not the reason, so the loss itself is waited for.
        """
        failure: WorkerError | None = None
        until = float("inf")
        while running and time.monotonic() < until:
            ready, _ = ray.wait(list(running), timeout=PRINT_SECONDS)
            with contextlib.suppress(ray.exceptions.RayError):  # the task of that process raises it too
                self._print()
            for each in ready:
                rank = running.pop(each)
                try:
                    accept(ray.get(each))
                except ray.exceptions.RayError as error:
                    raise self._halted(error, rank) from None
                except WorkerError as error:
                    failure, until = failure or error, min(until, time.monotonic() + GRACE_SECONDS)
        if failure is not None:
            raise failure

    def _print(self) -> None:
        for is_error, text in ray.get(self._members[0].printed.remote()):
            print(text, end="", file=sys.stderr if is_error else sys.stdout, flush=True)

    def _halted(self, error: Exception, rank: int) -> HaltedError:
        node = f"the cluster's node {self._addresses[rank]}"
        reason = f"process {rank + 1} of {len(self._members)} on {node} was killed, perhaps for lack of memory"
        unsure = isinstance(error, ray.exceptions.ActorUnavailableError)
        if is_lost(self._nodes[rank], GRACE_SECONDS if unsure else 0.0):
            reason = f"{node} is lost, and process {rank + 1} with it"
        return HaltedError(
            f"{reason}, and the others end too; nothing finished is lost: see `ray status`, and go on with --resume"
        )


class _Member:
    """One of the processes. Errors travel as text: Ray would wrap them in a traceback."""

    def __init__(self) -> None:
        self._printed: list[tuple[bool, str]] = []
        self._lock = threading.Lock()

    def place(self) -> tuple[str, str, str]:
        """The lane for the training steps of this process, and the id and the address of its node."""
        return lane.name(), ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]

    def open(self, address: str) -> int:
        """Listen at an address of this node; returns the port."""
        self._listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._listening.bind((address, 0))
        self._listening.listen()
        port: int = self._listening.getsockname()[1]
        return port

    def take_part(self, work: Work, share: Share, place: tuple[str, int, str], on_gpus: bool) -> dict[str, Any]:
        """Do the work. `place` is the address and port of the store, and the address of this node."""
        output, errors = _Output(self._keep, False), _Output(self._keep, True)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                if share.is_whole:
                    speak_for_all(share)
                    work(share)
                else:
                    self._meet_and_work(work, share, place, on_gpus=on_gpus)
            except Exception as error:
                return refusal(error)
        return {}

    def printed(self) -> list[tuple[bool, str]]:
        """The output since the last call: whether it went to standard error, and the text."""
        with self._lock:
            printed, self._printed = self._printed, []
        return printed

    def _meet_and_work(self, work: Work, share: Share, place: tuple[str, int, str], *, on_gpus: bool) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port, here = place
        os.environ |= interfaces(interface_of(here))
        listening = None if share.rank else self._listening.detach()
        store = TCPStore(
            address,
            port,
            share.count,
            is_master=not share.rank,
            wait_for_workers=False,
            master_listen_fd=listening,
        )
        work_in_group(work, share, store, on_gpus=on_gpus)

    def _keep(self, is_error: bool, text: str) -> None:
        with self._lock:
            self._printed.append((is_error, text))


class _Output(io.TextIOBase):
    """A text file that passes on what is written to it."""

    def __init__(self, keep: Any, is_error: bool) -> None:
        self._keep, self._is_error = keep, is_error

    def write(self, text: str) -> int:
        """Pass the text on."""
        self._keep(self._is_error, text)
        return len(text)


def _words(error: Exception) -> str:
    return one_line(error, 200, end=True)


def interface_of(address: str) -> str:
    """The network interface of this machine whose network contains an IPv4 address.

    Raises: UserError where there is none.
    """
    number, found = _number(address), list(_interfaces())
    for name, own, _ in found:
        if number == own:
            return name
    for name, own, mask in found:  # `lo` has all of 127.0.0.0/8
        if mask and number & mask == own & mask:
            return name
    raise UserError(f"expected a network interface with {address}, the address that Ray knows this node by; see `ip a`")


def _interfaces() -> Iterator[tuple[str, int, int]]:
    """Names, addresses and masks of the IPv4 interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # the interface has no IPv4 address
                request = struct.pack("256s", name.encode()[:15])
                address, mask = (fcntl.ioctl(opened, question, request)[20:24] for question in (GET_ADDRESS, GET_MASK))
                yield name, int.from_bytes(address), int.from_bytes(mask)


def _number(address: str) -> int:
    try:
        return int.from_bytes(socket.inet_aton(address))
    except OSError:
        raise UserError(
            f"expected an IPv4 address of a node, got {address}; start Ray with --node-ip-address"
        ) from None
