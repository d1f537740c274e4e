"""One seed, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import trio.testing
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from tests.jumping_clock import JumpingLoop
from wspool.websocket import TCPStream, listen_tcp

from .applications import Party, Role, ask
from .network import OWNER, Network, Target
from .oracle import Case, LogWatch, Oracle, content
from .plan import Plan, Visit, draw
from .processes import CLIENT, LEGS, Ends
from .substitutes import substituted

# Longer than all the limits that a session may run into, one after the other, and the delays of the network.
_PATIENCE = 150.0
# A dead tunnel that is idle is noticed by the client after 32 s, by the server after 60 s.
_SETTLING = 75.0
# After such a silence, OPEN has a PING with it.
_STALE = 6.0
# So that a dead tunnel is noticed within 5 s at most, two looks at the clock, and a session of some round trips.
_NOTICED = 8.0
_GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, OSError)

_V4, _V6 = "10.1.0.1", "fd01::1"
_PROBE = Visit(900, 0.0, "open", False, Role(size=300), Role(echoes=True))


def simulate(seed: int) -> World:
    """Run a seed, on trio; `Violation` if something does not hold."""
    return run_plan(draw(seed))


def run_plan(plan: Plan, backend: str = "trio") -> World:
    """Run a plan; on asyncio the order of the tasks is always the same, on trio it depends on the seed."""
    now, options = _jumping_clock(backend)
    network = Network(plan.seed, now, plan.storm, legs=LEGS)
    world = World(plan, network)
    with substituted(network, plan.sweep_interval) as made, world.log:
        anyio.run(world.run, made, backend=backend, backend_options=options)
    world.oracle.verdict()
    return world


def _jumping_clock(backend: str) -> tuple[Callable[[], float], dict[str, Any]]:
    """The time, and the options of an event loop on which it passes at once."""
    if backend == "asyncio":
        return anyio.current_time, {"loop_factory": JumpingLoop}
    clock = trio.testing.MockClock(autojump_threshold=0)
    return clock.current_time, {"clock": clock}


class World:
    """All that there is in one run."""

    def __init__(self, plan: Plan, network: Network) -> None:
        self.plan = plan
        self.network = network
        self.oracle = Oracle(plan, network)
        self.log = LogWatch(self.oracle)
        self.cases: list[Case] = []
        self.ends: Ends

    async def run(self, made: dict[str, Any]) -> None:
        async with anyio.create_task_group() as self.tasks:
            self.tasks.start_soon(self.network.run)
            self.ends = Ends(self.tasks, self.oracle, made)
            await self.ends.server.start()
            await self.ends.client.start()
            await self._carry_out_plan()
            self.network.calm_down()
            await self._settle()
            for case in self.cases:
                self.oracle.judge(case)
            await self._probe()
            for end in (self.ends.client, self.ends.server):
                with anyio.move_on_after(_PATIENCE):
                    await end.leave("stop")
                self.oracle.blame_if(not end.ended.is_set(), f"{end.owner} does not end")
            self.tasks.cancel_scope.cancel()

    async def _carry_out_plan(self) -> None:
        async with anyio.create_task_group() as everything:
            everything.start_soon(self._make_trouble)
            for visits in self.plan.applications:
                everything.start_soon(self._visit_all, visits)

    async def _visit_all(self, visits: tuple[Visit, ...]) -> None:
        for visit in visits:
            await anyio.sleep(visit.after)
            await self.visit(visit)

    async def _make_trouble(self) -> None:
        for trouble in sorted(self.plan.troubles, key=lambda each: each.at):
            await anyio.sleep(max(0.0, trouble.at - self.network.now()))
            end = self.ends[trouble.whom]
            await end.leave(trouble.way)
            await anyio.sleep(trouble.pause)
            await end.start()

    # --- one session ------------------------------------------------------------------------------------

    async def visit(self, visit: Visit) -> Case:
        """Have a session. Its destination may go on when the application has gone."""
        OWNER.set(f"application {visit.number}")
        case = self._case(visit)
        self.cases.append(case)
        await self._set_up_destination(case)
        with anyio.move_on_after(_PATIENCE) as patience:
            try:
                await self._talk(case)
            except _GONE as error:
                case.outcome = f"no reply: {error!r}"
        if patience.cancelled_caught:
            # If nothing reaches the application itself any more, nobody else is to be blamed.
            case.outcome = "is cut off" if self._is_cut_off(visit) else "hangs"
        self.network.note(f"session {visit.number}", case.outcome or "has talked")
        return case

    async def _talk(self, case: Case) -> None:
        visit = case.visit
        stream: TCPStream | None = None
        with anyio.move_on_after(visit.near.patience):
            stream, case.reply = await ask(CLIENT, case.host, case.port, case.up[: visit.early])
            self.network.note(f"session {visit.number}", f"reply {case.reply}")
        if stream is None:
            case.outcome = "gave up"
        elif case.reply:
            async with stream:
                await stream.receive()
        else:
            check = lambda party: self.oracle.hears(party, case.far, case.down)  # noqa: E731  # bound to this case
            case.near = Party(f"application {visit.number}", visit.near, stream, case.up, check, said=visit.early)
            await case.near.run()

    def _is_cut_off(self, visit: Visit) -> bool:
        owner = f"application {visit.number}"
        return any(each.ends[0].owner == owner and each.dead for each in self.network.connections)

    # --- its destination --------------------------------------------------------------------------------

    def _case(self, visit: Visit) -> Case:
        seed, number, port = self.plan.seed, visit.number, 20000 + visit.number
        up = content(seed, f"{number} up", visit.near.size)
        down = up if visit.far.echoes else content(seed, f"{number} down", visit.far.size)
        host, hosts = _V4, [_V4]
        if visit.by_name:
            host, hosts = f"host-{number}.example", [_V6, _V4]
        if visit.door == "no name":
            host, hosts = f"no-{number}.example", []
        return Case(visit, host, port, [(each, port) for each in hosts], up, down)

    async def _set_up_destination(self, case: Case) -> None:
        door, targets = case.visit.door, case.targets
        if case.visit.by_name and door != "no name":
            self.network.names[case.host] = tuple(host for host, _ in targets)
        if door in ("unreachable", "silence"):
            self.network.answers.update(dict.fromkeys(targets, door))
        if door == "open":
            # Of two addresses, the first one answers late or not at all: happy eyeballs have something to do.
            self.network.answers.update(dict.fromkeys(targets[:-1], "silence"))
            ready = anyio.Event()
            self.tasks.start_soon(self._receive_guests, case, targets[-1], ready)
            await ready.wait()

    async def _receive_guests(self, case: Case, target: Target, ready: anyio.Event) -> None:
        OWNER.set("destination")
        listener = await listen_tcp(*target)
        ready.set()

        def check(party: Party) -> None:
            self.oracle.hears(party, [] if case.near is None else [case.near], case.up)

        async def serve(stream: TCPStream) -> None:
            name = f"destination {case.visit.number}.{len(case.far)}"
            party = Party(name, case.visit.far, stream, case.down, check)
            case.far.append(party)
            await party.run()

        await listener.serve(serve, self.tasks)

    # --- the end ----------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until the ends have noticed what was wrong."""
        with anyio.move_on_after(_SETTLING):
            while self._unsettled():  # noqa: ASYNC110  # a network has no event for it
                await anyio.sleep(0.5)
        for what in self._unsettled():
            self.oracle.blame(f"{_SETTLING:g} s after the last application has gone, there is {what}")
        if self.plan.is_polite:
            tunnels = [each for each in self.network.connections if each.leg == "tunnel"]
            # A server that is still busy with what a session left behind may look dead to the next one.
            expected = len(tunnels) - self.log.retries
            idle = self.ends.pool.statistics().idle
            self.oracle.blame_if(idle != expected, f"of {len(tunnels)} tunnels, {idle} are left")

    def _unsettled(self) -> list[str]:
        figures = self.ends.pool.statistics()
        sessions = self.ends.server.end._sessions
        owners = (self.ends.client.owner, self.ends.server.owner)
        dead = [
            f"a dead {each.leg} {each.number} that {end.owner} keeps"
            for each in self.network.connections
            if each.dead
            for end in each.ends
            if end.owner in owners and not end.closed
        ]
        unheard = [f"an unfinished session: {each}" for each in self.cases if self.oracle.is_to_finish(each)]
        held = [f"a tunnel in use: {figures}"] if figures.held or figures.waiting or figures.dialling else []
        return dead + unheard + held + [f"a session at the server: {sessions}"] * bool(sessions)

    async def _probe(self) -> None:
        """Everything works again, a tunnel is used again, and one that has died is nobody's problem."""
        await self._succeed(900)
        tunnels = self.network.requests["tunnel"]
        await self._succeed(901)
        record = [each for each in self.log.sessions if each.role == "client"][-1]
        is_fresh = not record.reused and tunnels != self.network.requests["tunnel"]
        self.oracle.blame_if(is_fresh, "a session after another had a tunnel of its own")
        if not self.plan.fast_open:  # there, nothing can be tried again when the application has said something
            self.network.forget("tunnel")
            await anyio.sleep(_STALE)
            began = self.network.now()
            await self._succeed(902)
            took = self.network.now() - began
            self.oracle.blame_if(took > _NOTICED, f"after all the trouble, a dead tunnel was noticed after {took} s")

    async def _succeed(self, number: int) -> None:
        case = await self.visit(replace(_PROBE, number=number))
        with anyio.move_on_after(_PATIENCE):
            while not case.is_complete or self.ends.pool.statistics().held:  # noqa: ASYNC110  # as above
                await anyio.sleep(0.2)
        self.oracle.blame_if(not case.is_complete, f"a session after all the trouble has failed: {case}")
