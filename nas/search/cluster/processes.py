"""Processes of a Ray cluster that do one work together, and end together: `nas.runs.processes` on several machines.

Each is on a node that has room for it, with processors and a GPU of its own. They meet at a store that the first one
opens on its node, at the address that the cluster knows that by and at no other; where one machine has them all, on
loopback. What the first one prints is printed here.
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
from nas.latency.machine import lane
from nas.latency.worker.replies import WorkerError, accept, refusal
from nas.runs.processes import Work, interfaces, speak_for_all, work_in_group
from nas.search.cluster.configured_ray import PlacementGroupSchedulingStrategy, ray
from nas.search.cluster.nodes import Resources, is_lost
from nas.search.cluster.workers import workers_of
from nas.search.search import Workers
from space.errors import UserError

GRACE_SECONDS = 60.0  # for Ray to find out that a node is lost, which the processes on others see at once
TELL_SECONDS = 0.5  # between two looks at what is printed
WAIT_SECONDS = 20.0  # for room on the nodes, before it is said
LOOPBACK = "127.0.0.1"
GET_ADDRESS, GET_MASK = 0x8915, 0x891B  # of an interface; netdevice(7)


def members_of(nodes: Sequence[Resources], wanted: str, device: str | None) -> Workers:
    """The processes that `--processes` asks for: a number, or `gpus` for one on each GPU. `device`: what --device says.

    Raises: UserError where the nodes have no room for them.
    """
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device: expected cpu or cuda together with --address, got {device}; nodes count their own")
    if device == "cpu":
        nodes = [{**node, "GPU": 0} for node in nodes]
    count = 0 if wanted == "gpus" else int(wanted)
    found = replace(workers_of(nodes, count), joined=True)
    if found.device == "cpu" and (device == "cuda" or not count):
        raise UserError(
            "--processes: expected GPUs, but no node of the cluster has one to give; give a number, to train on CPUs"
        )
    if found.concurrent < count:
        raise UserError(
            f"--processes: expected room for {count} processes, but the cluster's nodes have room for "
            f"{found.concurrent}; give {found.concurrent}, or have another node join"
        )
    return found


def work_on_nodes(work: Work, members: Workers) -> None:
    """Do `work` in as many processes of the connected cluster, each with its share, and wait for all.

    Raises: what the first that failed has raised, if it is a UserError or an OSError; HaltedError when one was killed,
    or its node is lost; WorkerError for anything else.
    """
    bundle = {"CPU": members.threads, "GPU": int(members.device == "cuda")}
    group = ray.util.placement_group([bundle] * members.concurrent, strategy="PACK")
    try:
        with contextlib.suppress(ray.exceptions.GetTimeoutError):
            ray.get(group.ready(), timeout=WAIT_SECONDS)
        if not group.wait(0):
            told = f"{members.concurrent} x {members.threads} processors{' and a GPU' if bundle['GPU'] else ''}"
            print(f"waiting for {told} of the cluster's to be free; see `ray status`", file=sys.stderr, flush=True)
            ray.get(group.ready())
        _Members(group, bundle).do(work, on_gpus=members.device == "cuda")
    finally:
        ray.util.remove_placement_group(group)


class _Members:
    """The processes, in the order of their lanes: all trainings of a cluster enter those in this order."""

    def __init__(self, group: Any, bundle: dict[str, int]) -> None:
        member: Any = ray.remote(_Member)
        members = [
            member.options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle["GPU"],
                max_concurrency=2,  # one works, the other tells what is printed
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            ).remote()
            for index in range(group.bundle_count)
        ]
        try:
            places: list[tuple[str, str, str]] = ray.get([each.place.remote() for each in members])
        except ray.exceptions.RayError as error:
            raise OSError(f"a process on a node of the cluster does not begin: {_words(error)}") from None
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
            asked = {}
            for rank, member in enumerate(self._members):
                share = WHOLE if count == 1 else Share(rank=rank, count=count, machines=self._machines)
                place = (addresses[0], port, addresses[rank])
                asked[member.take_part.remote(work, share, place, on_gpus)] = rank
            self._wait(asked)
        except ray.exceptions.RayError as error:
            raise self._halted(error, 0) from None
        finally:
            for member in self._members:
                ray.kill(member)

    def _wait(self, asked: dict[Any, int]) -> None:
        """Raises: why they cannot go on. One that lost another one fails too, which is not the reason."""
        failure: WorkerError | None = None
        until = float("inf")
        while asked and time.monotonic() < until:
            ready, _ = ray.wait(list(asked), timeout=TELL_SECONDS)
            with contextlib.suppress(ray.exceptions.RayError):  # which is told by what it was asked
                self._tell()
            for each in ready:
                rank = asked.pop(each)
                try:
                    accept(ray.get(each))
                except ray.exceptions.RayError as error:
                    raise self._halted(error, rank) from None
                except WorkerError as error:
                    failure, until = failure or error, min(until, time.monotonic() + GRACE_SECONDS)
        if failure is not None:
            raise failure

    def _tell(self) -> None:
        for is_error, text in ray.get(self._members[0].said.remote()):
            print(text, end="", file=sys.stderr if is_error else sys.stdout, flush=True)

    def _halted(self, error: Exception, rank: int) -> HaltedError:
        node = f"the cluster's node {self._addresses[rank]}"
        reason = f"process {rank + 1} of {len(self._members)} on {node} was ended, for want of memory perhaps"
        unsure = isinstance(error, ray.exceptions.ActorUnavailableError)
        if is_lost(self._nodes[rank], GRACE_SECONDS if unsure else 0.0):
            reason = f"{node} is lost, and process {rank + 1} with it"
        return HaltedError(
            f"{reason}, and the others end too; nothing finished is lost: look at `ray status`, and go on with --resume"
        )


class _Member:
    """One of the processes. What went wrong travels as text: Ray would wrap it in a traceback."""

    def __init__(self) -> None:
        self._said: list[tuple[bool, str]] = []
        self._lock = threading.Lock()

    def place(self) -> tuple[str, str, str]:
        """The lane that steps of this process enter, and the number and the address of its node."""
        return lane.name(), ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]

    def open(self, address: str) -> int:
        """Listen at an address of this node; the port."""
        self._listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._listening.bind((address, 0))
        self._listening.listen()
        port: int = self._listening.getsockname()[1]
        return port

    def take_part(self, work: Work, share: Share, place: tuple[str, int, str], on_gpus: bool) -> dict[str, Any]:
        """Do the work. `place`: address and port of the store, and the address of this node."""
        with contextlib.redirect_stdout(_Said(self._tell, False)), contextlib.redirect_stderr(_Said(self._tell, True)):
            try:
                if share.is_whole:
                    speak_for_all(share)
                    work(share)
                else:
                    self._meet_and_work(work, share, place, on_gpus=on_gpus)
            except Exception as error:
                return refusal(error)
        return {}

    def said(self) -> list[tuple[bool, str]]:
        """What was printed since this was asked: whether as an error, and the text."""
        with self._lock:
            said, self._said = self._said, []
        return said

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

    def _tell(self, is_error: bool, text: str) -> None:
        with self._lock:
            self._said.append((is_error, text))


class _Said(io.TextIOBase):
    """A text file whose lines are told."""

    def __init__(self, tell: Any, is_error: bool) -> None:
        self._tell, self._is_error = tell, is_error

    def write(self, text: str) -> int:
        """Tell it."""
        self._tell(self._is_error, text)
        return len(text)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]


def interface_of(address: str) -> str:
    """The network interface of this machine in whose network an address is (IPv4).

    Raises: UserError where none is.
    """
    number, found = _number(address), list(_interfaces())
    for name, own, _ in found:
        if number == own:
            return name
    for name, own, mask in found:  # all of 127.0.0.0/8 is of `lo`
        if mask and number & mask == own & mask:
            return name
    raise UserError(f"expected a network interface with {address}, the address that Ray knows this node by; see `ip a`")


def _interfaces() -> Iterator[tuple[str, int, int]]:
    """Names, addresses and masks."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                request = struct.pack("256s", name.encode()[:15])
                address, mask = (fcntl.ioctl(asked, question, request)[20:24] for question in (GET_ADDRESS, GET_MASK))
                yield name, int.from_bytes(address), int.from_bytes(mask)


def _number(address: str) -> int:
    try:
        return int.from_bytes(socket.inet_aton(address))
    except OSError:
        raise UserError(
            f"expected an IPv4 address of a node, got {address}; start Ray with --node-ip-address"
        ) from None
