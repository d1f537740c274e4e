"""The ends, which can be stopped, killed and started again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup

from examples.socks_proxy.client import run_client
from examples.socks_proxy.policy import Policy
from examples.socks_proxy.server import run_server
from examples.socks_proxy.settings import ClientSettings, ServerSettings

from .network import OWNER, Network, Target
from .oracle import Oracle
from .plan import Plan, Way

SERVER: Target = ("10.0.0.1", 443)
CLIENT: Target = ("10.0.0.2", 1080)
LEGS = {SERVER[0]: "tunnel", CLIENT[0]: "application"}
_TOKEN = "a token that nobody knows"


class Process:
    """One end, in one life after the other."""

    def __init__(
        self, tasks: TaskGroup, oracle: Oracle, ends: dict[str, Any], run: Callable[..., Awaitable[None]], settings: Any
    ) -> None:
        self._tasks = tasks
        self._oracle = oracle
        self._network: Network = oracle.network
        self._run = run
        self._settings = settings
        self._ends = ends
        self.name = run.__name__.removeprefix("run_")
        self.lives = 0
        self.ended = anyio.Event()
        self._stop = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def owner(self) -> str:
        """Of its sockets, in this life."""
        return f"{self.name} {self.lives}"

    async def start(self) -> None:
        self.lives += 1
        self._stop, self.ended, ready = anyio.Event(), anyio.Event(), anyio.Event()
        self._tasks.start_soon(self._live, ready)
        await ready.wait()

    async def _live(self, ready: anyio.Event) -> None:
        OWNER.set(self.owner)
        self._network.note(self.owner, "starts")
        with anyio.CancelScope() as self._scope:
            await self._run(self._settings, ready=lambda _: ready.set(), stop=self._stop)
        self._network.note(self.owner, "has ended")
        self._check_nothing_is_left()
        self.ended.set()

    @property
    def end(self) -> Any:
        """The object of the end that runs, or ran last."""
        return self._ends[self.owner]

    async def leave(self, way: Way) -> None:
        """Stop it as an operator does, or worse; return when it has ended."""
        match way:
            case "stop":
                self._stop.set()
            case "kill":
                self._network.kill(self.owner)
                self._scope.cancel()
            case "power":
                self._network.cut_off(self.owner)
                self._scope.cancel()
        await self.ended.wait()

    def _check_nothing_is_left(self) -> None:
        left = [*self._network.sockets_of(self.owner), *self.end.sweeper.tunnels]
        if self.name == "client":
            figures = self.end.pool.statistics()
            left += [figures] * (figures.size or figures.waiting)
        else:
            left += [self.end] * (self.end._sessions or self.end._connections or self.end._handshakes)
        self._oracle.blame_if(left, f"{self.owner} has left {left}")


class Ends:
    """The two, as a plan wants them."""

    def __init__(self, tasks: TaskGroup, oracle: Oracle, made: dict[str, Any]) -> None:
        self.server = Process(tasks, oracle, made, run_server, _server_settings(oracle.plan))
        self.client = Process(tasks, oracle, made, run_client, _client_settings(oracle.plan))

    def __getitem__(self, name: str) -> Process:
        return self.server if name == "server" else self.client

    @property
    def pool(self) -> Any:
        return self.client.end.pool


def _server_settings(plan: Plan) -> ServerSettings:
    return ServerSettings(
        listen=SERVER,
        token=_TOKEN,
        plain=True,
        policy=Policy(allow_private=True),
        dial_timeout=3,
        lookup_timeout=2,
        idle_timeout=plan.idle_timeout,
        grace=2,
    )


def _client_settings(plan: Plan) -> ClientSettings:
    return ClientSettings(
        listen=CLIENT,
        server=f"ws://{SERVER[0]}:{SERVER[1]}/",
        token=_TOKEN,
        max_size=plan.max_size,
        max_idle=plan.max_size,
        min_idle=plan.min_idle,
        fast_open=plan.fast_open,
        greeting_timeout=5,
        connect_timeout=4,
        idle_timeout=plan.idle_timeout,
        grace=2,
    )
