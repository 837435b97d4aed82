"""The actors of a race on a Ray cluster: started, watched, and ended together.

Boundary: actors in, how they ended out; works with the module ``ray`` that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from timetrial.bench.launch.ray_seat import Ended, Order, Seat
from timetrial.framework.errors import Interrupted, InterruptedAgain, reason_of
from timetrial.framework.signals import noted

RESTARTS: Final = 20
"""Restarts of an actor, on any node; the queue gives up a run that kills four workers."""

ABSENT_SECONDS: Final = 15.0
"""Time for an actor to answer; one that does not has no process now."""

POLL_SECONDS: Final = 0.5

_SIDE: Final = "signals"
"""Concurrency group whose calls an actor answers while its worker runs."""


class Crew:
    """The actors of one command.

    Args:
        ray: the module, connected.
        share: what an actor takes of a node, as resources of Ray.
    """

    def __init__(self, ray: Any, share: Mapping[str, float]) -> None:
        self._ray = ray
        self._share = dict(share)
        self._actors: dict[Any, Any] = {}
        self._ends: list[Ended] = []

    def run(self, orders: Sequence[Order]) -> list[Ended]:
        """Runs one actor per order until all have ended; passes signals on.

        Once a worker has found no work left, actors without a process are given up: they wait for
        a node, and nothing is left to do there.

        Raises:
            Interrupted: a signal came; the workers have ended.
        """
        with noted() as signalled:
            try:
                self._begin(orders)
                while self._actors:
                    self._collect()
                    if signalled() or self._any_done():
                        self._call(signalled())
            except InterruptedAgain:
                self._kill()
                raise
            number = signalled()
        if number:
            raise Interrupted(number)
        return self._ends

    def _begin(self, orders: Sequence[Order]) -> None:
        ray, share = self._ray, dict(self._share)
        seat = ray.remote(concurrency_groups={_SIDE: 1})(Seat)
        options = {"num_cpus": share.pop("CPU"), "num_gpus": share.pop("GPU", 0)}
        for order in orders:  # a call is repeated as often as its actor can be restarted
            actor = seat.options(
                **options, resources=share, max_restarts=RESTARTS, max_task_retries=-1
            ).remote(order)
            self._actors[actor.run.remote()] = actor

    def _any_done(self) -> bool:
        """True when a worker has ended because no run was left for it."""
        return any(end.code in (0, 1) for end in self._ends)

    def _collect(self) -> None:
        """Takes note of the actors that have ended."""
        done, _ = self._ray.wait(list(self._actors), timeout=POLL_SECONDS)
        for reference in done:
            actor = self._actors.pop(reference)
            try:
                self._ends.append(self._ray.get(reference))
            except Exception as error:  # Ray's errors, and what unpickling raises
                self._ends.append(Ended(-9, reason_of(error)))
            self._ray.kill(actor)  # frees its share

    def _call(self, number: int) -> None:
        """Sends a signal, or 0, to all actors; gives up those that do not answer."""
        actors = list(self._actors.values())
        if not actors:
            return
        calls = {
            actor.send.options(concurrency_group=_SIDE).remote(number): actor for actor in actors
        }
        _, silent = self._ray.wait(list(calls), num_returns=len(calls), timeout=ABSENT_SECONDS)
        for call in silent:
            self._ray.kill(calls[call])

    def _kill(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
