"""Candidates in processes of their own, forked from a process that runs no network.

In a process that has built, exported and run other networks, small ones take 3 to 9 % longer than in a new process, as
in a deployment, because they get memory that the others left behind. So each candidate has its own process with its own
reference network and canary. When several candidates take turns, all processes but one wait.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.host.parent import end_with
from nas.latency.machine.load import Snapshot
from nas.latency.protocol import anchor
from nas.latency.protocol.anchor import Anchor
from nas.latency.protocol.ready import ReadyNetwork, TimedBlock
from nas.latency.worker.arrays import LABELS, array_of, values_of
from nas.latency.worker.replies import accept, answer, refusal

Answers = Callable[[dict[str, Any]], dict[str, Any]]
"""Maps a request to its reply."""
Prepare = Callable[[], Answers]
"""Prepares everything, and returns the function that answers requests."""


class Child:
    """A forked process that prepares, and then answers requests. Neither process outlives the other."""

    def __init__(self, prepare: Prepare) -> None:
        requests, self._requests = os.pipe()
        incoming, replies = os.pipe()
        parent = os.getpid()
        self._process = os.fork()
        if not self._process:
            end_with(parent)
            with contextlib.suppress(BaseException):
                _serve(prepare, requests, replies)
            os._exit(0)  # without the parent's exit handlers
        os.close(requests)
        os.close(replies)
        self._replies = os.fdopen(incoming)
        self._prepared = False

    def prepared(self) -> Child:
        """Wait until the process has prepared, and return this child.

        Raises: UserError or WorkerError when it failed to prepare (`nas.latency.worker.replies`).
        """
        if not self._prepared:
            self._receive()
            self._prepared = True
        return self

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request.

        Raises: UserError or WorkerError when the request failed (`nas.latency.worker.replies`).
        """
        with contextlib.suppress(BrokenPipeError):  # it has died; waiting for its reply reports that
            os.write(self._requests, f"{json.dumps(request)}\n".encode())
        return self._receive()

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._requests)
        self._replies.close()

    def _receive(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            _, status = os.waitpid(self._process, 0)
            os.kill(os.getpid(), os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGABRT)
        return accept(json.loads(line))


def _serve(prepare: Prepare, requests: int, replies: int) -> None:
    with os.fdopen(requests) as lines, os.fdopen(replies, "w") as output:

        def send(reply: dict[str, Any]) -> None:
            output.write(f"{json.dumps(reply)}\n")
            output.flush()

        try:
            respond = prepare()
        except Exception as error:
            send(refusal(error))
            return
        send({})
        for line in lines:
            send(answer(functools.partial(respond, json.loads(line))))


class RemoteNetwork:
    """A candidate in a child process, controlled from this one."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def warm_up(self) -> None:
        """See `nas.latency.protocol.ready.ReadyNetwork`."""
        self._child.ask({"do": "warm up"})

    def take_block(self) -> TimedBlock:
        """See `nas.latency.protocol.ready.ReadyNetwork`."""
        return _block_of(self._child.ask({"do": "take a block"}))

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """See `nas.latency.protocol.ready.ReadyNetwork`."""
        text = None if instead_of is None else anchor.text_of(instead_of)
        return anchor.of_text(self._child.ask({"do": "anchor", "instead of": text})["anchor"])

    def labels(self) -> NDArray[Any]:
        """See `nas.latency.protocol.ready.ReadyNetwork`."""
        return array_of(self._child.ask({"do": "labels"}), LABELS)


def _answers_for(make: Callable[[], ReadyNetwork]) -> Answers:
    """Answers to a `RemoteNetwork`, in the child process."""
    candidate = make()

    def respond(request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "warm up":
                candidate.warm_up()
                return {}
            case "take a block":
                return _values_of(candidate.take_block())
            case "labels":
                return values_of(candidate.labels(), LABELS)
            case wanted:
                assert wanted == "anchor"
                text = request["instead of"]
                instead_of = None if text is None else anchor.of_text(text)
                return {"anchor": anchor.text_of(candidate.anchored(instead_of))}

    return respond


def _values_of(block: TimedBlock) -> dict[str, Any]:
    """A block as plain values that can be sent. Without GPU states, since candidates on a GPU share one process."""
    span = [{name: value for name, value in vars(each).items() if name != "gpu"} for each in block.span]
    return {"times": block.times.tolist(), "canary_milliseconds": block.canary_milliseconds, "span": span}


def _block_of(values: Mapping[str, Any]) -> TimedBlock:
    """The block from its `_values_of`."""
    before, after = (Snapshot(**counters) for counters in values["span"])
    times = np.asarray(values["times"])
    return TimedBlock(times=times, canary_milliseconds=values["canary_milliseconds"], span=(before, after))


def computed(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`, run in a separate process that ends afterwards.

    Raises: UserError or WorkerError when it failed (`nas.latency.worker.replies`).
    """
    child = Child(lambda: lambda request: work())
    try:
        return child.prepared().ask({})
    finally:
        child.end()


@contextlib.contextmanager
def start(makers: Sequence[Callable[[], ReadyNetwork]], at_once: int) -> Iterator[list[RemoteNetwork]]:
    """Start a child process for each candidate. `at_once` of them prepare at a time; all end with the context.

    Raises: UserError or WorkerError when one failed to prepare (`nas.latency.worker.replies`).
    """
    children: list[Child] = []
    try:
        for number, make in enumerate(makers):
            if number >= at_once:
                children[number - at_once].prepared()
            children.append(Child(functools.partial(_answers_for, make)))
        yield [RemoteNetwork(child.prepared()) for child in children]
    finally:
        for child in children:
            child.end()
