"""Candidates in processes of their own, forked from one that runs no network: a process ages.

Where networks were built, exported and run before, small ones take 3 to 9 % longer than in a new process, as one that
is deployed is (their memory is what the others left). So each candidate has a process with its own reference network
and canary, also where several take turns: all wait but the one whose turn it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nas.latency.protocol.anchor import Anchor
from nas.latency.protocol.referee import Place
from nas.latency.protocol.stand import Block
from nas.latency.worker.replies import accept, answer, refusal
from space import strict

PR_SET_PDEATHSIG = 1  # linux/prctl.h

Answers = Callable[[dict[str, Any]], dict[str, Any]]
Prepare = Callable[[], Answers]  # what answers requests, once everything is prepared


class Child:
    """A forked process that prepares, and then answers requests. As it dies, so do we, and it with us."""

    def __init__(self, prepare: Prepare) -> None:
        requests, self._requests = os.pipe()
        heard, replies = os.pipe()
        self._process = os.fork()
        if not self._process:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            with contextlib.suppress(BaseException):
                _serve(prepare, requests, replies)
            os._exit(0)  # nothing of the parent's is to be tidied up
        os.close(requests)
        os.close(replies)
        self._heard = os.fdopen(heard)
        self._prepared = False

    def prepared(self) -> Child:
        """This, when it has prepared.

        Raises: what its preparing raised (see `nas.latency.worker.replies`).
        """
        if not self._prepared:
            self._hear()
            self._prepared = True
        return self

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer.

        Raises: what its answering raised (see `nas.latency.worker.replies`).
        """
        with contextlib.suppress(BrokenPipeError):  # it has died; hearing from it will tell
            os.write(self._requests, f"{json.dumps(request)}\n".encode())
        return self._hear()

    def end(self) -> None:
        """End the process, whatever it does."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._requests)
        self._heard.close()

    def _hear(self) -> dict[str, Any]:
        line = self._heard.readline()
        if not line:
            _, status = os.waitpid(self._process, 0)
            os.kill(os.getpid(), os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGABRT)
        return accept(json.loads(line))


def _serve(prepare: Prepare, requests: int, replies: int) -> None:
    with os.fdopen(requests) as asked, os.fdopen(replies, "w") as answered:

        def say(reply: dict[str, Any]) -> None:
            answered.write(f"{json.dumps(reply)}\n")
            answered.flush()

        try:
            respond = prepare()
        except Exception as error:
            say(refusal(error))
            return
        say({})
        for line in asked:
            say(answer(functools.partial(respond, json.loads(line))))


class Seat:
    """A place in a child, spoken to from outside."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def warm_up(self) -> None:
        """See `nas.latency.protocol.stand.Stand`."""
        self._child.ask({"do": "warm up"})

    def take_block(self) -> Block:
        """See `nas.latency.protocol.stand.Stand`."""
        return Block.from_dict(self._child.ask({"do": "take a block"}))

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """See `nas.latency.protocol.referee.Place`."""
        text = None if instead_of is None else strict.dump(instead_of)
        reply = self._child.ask({"do": "anchor", "instead of": text})
        return strict.parse(reply["anchor"], Anchor, "a measuring process")


def _speak_for(make: Callable[[], Place]) -> Answers:
    """The other end of `Seat`."""
    place = make()

    def respond(request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "warm up":
                place.warm_up()
                return {}
            case "take a block":
                return place.take_block().to_dict()
            case wanted:
                assert wanted == "anchor"
                text = request["instead of"]
                instead_of = None if text is None else strict.parse(text, Anchor, "the measuring process")
                return {"anchor": strict.dump(place.anchored(instead_of))}

    return respond


@contextlib.contextmanager
def seats(makers: Sequence[Callable[[], Place]], at_once: int) -> Iterator[list[Seat]]:
    """A child for each place, of which so many are prepared at once; they end with the context.

    Raises: what preparing raised there.
    """
    children: list[Child] = []
    try:
        for number, make in enumerate(makers):
            if number >= at_once:
                children[number - at_once].prepared()
            children.append(Child(functools.partial(_speak_for, make)))
        yield [Seat(child.prepared()) for child in children]
    finally:
        for child in children:
            child.end()
