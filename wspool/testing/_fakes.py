"""Connections that die, hang or fail on demand, and a connector whose dials the test answers by hand."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from ._clock import settle

if TYPE_CHECKING:
    from collections.abc import Callable


class Fault(Enum):
    """What a hook of a fake connection can be told to do instead of its work."""

    HANG = auto()
    """Wait for ever, until cancelled."""


class FakeConnection:
    """A connection to nothing. `Poolable`; its hooks do what its attributes say.

    Each of `on_close`, `on_validate` and `on_reset` is None (do well), an exception to raise, or
    `Fault.HANG`; `on_validate` may also be False. Pass the hooks to a pool as
    `Pool(connector, validate=FakeConnection.validate, reset=FakeConnection.reset)`.
    """

    def __init__(self, number: int = 0) -> None:
        """A living connection."""
        self.number = number
        self.alive: bool | BaseException = True
        """What `is_reusable` answers; an exception here is raised."""
        self.on_close: BaseException | Fault | None = None
        self.on_validate: BaseException | Fault | bool | None = None
        self.on_reset: BaseException | Fault | None = None
        self.closes: int = 0
        """How often `aclose` was called: exactly once is right."""
        self.validations: int = 0
        self.resets: int = 0
        self._user: object = None

    def __repr__(self) -> str:
        """Number and condition."""
        condition = "closed" if self.closes else "alive" if self.alive is True else "dead"
        return f"<FakeConnection {self.number}, {condition}>"

    def die(self) -> None:
        """The peer is gone: from now on the connection is not reusable."""
        self.alive = False

    def use(self, user: object) -> None:
        """Begin to use it; AssertionError if somebody else does, or if it is closed."""
        assert self._user is None, f"{self} is used by {self._user!r} and by {user!r} at once"
        assert not self.closes, f"{self} was handed out"
        self._user = user

    def leave(self) -> None:
        """End of use."""
        self._user = None

    def is_reusable(self) -> bool:
        """Whether it is alive."""
        if not isinstance(self.alive, bool):
            raise self.alive
        return self.alive

    async def validate(self) -> bool:
        """The `validate` hook: is it alive, unless told otherwise."""
        self.validations += 1
        if isinstance(self.on_validate, bool):
            return self.on_validate
        await _suffer(self.on_validate)
        return self.is_reusable()

    async def reset(self) -> None:
        """The `reset` hook."""
        self.resets += 1
        await _suffer(self.on_reset)

    async def aclose(self) -> None:
        """Close; counts how often."""
        self.closes += 1
        await _suffer(self.on_close)


async def _suffer(fault: BaseException | Fault | None) -> None:
    if fault is Fault.HANG:
        await anyio.sleep_forever()
    elif fault is not None:
        raise fault
    await anyio.lowlevel.checkpoint()


class FakeDial:
    """A dial under way, to be answered by `succeed` or `fail`; otherwise it goes on for ever."""

    def __init__(self, connector: FakeConnector) -> None:
        """Made by a `FakeConnector`."""
        self._connector = connector
        self._answered = anyio.Event()
        self._answer: FakeConnection | BaseException | None = None
        self.cancelled: bool = False
        """Whether the pool cancelled it."""

    @property
    def pending(self) -> bool:
        """Whether it still waits for its answer."""
        return self._answer is None and not self.cancelled

    def succeed(self, connection: FakeConnection | None = None) -> FakeConnection:
        """Answer with a new connection, or with this one."""
        if connection is None:
            connection = self._connector.new_connection()
        # Tests without a type checker.
        if not isinstance(connection, FakeConnection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"connection must be a FakeConnection, got {connection!r}: an error is for fail()")
        self._set(connection)
        return connection

    def fail(self, error: BaseException | None = None) -> BaseException:
        """Answer with an exception, by default a ConnectionRefusedError."""
        if error is None:
            error = ConnectionRefusedError("refused, by the test")
        # Tests without a type checker.
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"error must be an exception, got {error!r}")
        self._set(error)
        return error

    def _answer_by(self, answer: Callable[[], FakeConnection]) -> None:
        try:
            self.succeed(answer())
        except Exception as error:
            self.fail(error)

    def _set(self, answer: FakeConnection | BaseException) -> None:
        assert self.pending, "this dial has ended already"
        self._answer = answer
        self._answered.set()

    async def _run(self, answer: Callable[[], FakeConnection] | None) -> FakeConnection:
        try:
            if answer is None:
                await self._answered.wait()
            else:
                await anyio.lowlevel.checkpoint()
                self._answer_by(answer)
        except BaseException:
            self.cancelled = True
            if isinstance(self._answer, FakeConnection):
                self._answer.closes += 1  # as a real connect closes the socket that it does not return
            raise
        if isinstance(self._answer, BaseException):
            raise self._answer
        assert self._answer is not None
        return self._answer


class FakeConnector:
    """A `connect` for a pool under test: `Pool(connector)`.

    By default each dial waits until the test answers it, see `next_dial`. With `answer`, it is
    answered at once by what that callable returns or raises; `FakeConnector.always()` does so with new connections.
    """

    def __init__(self, answer: Callable[[], FakeConnection] | None = None) -> None:
        """No dial so far."""
        self.answer = answer
        self.dials: list[FakeDial] = []
        self.connections: list[FakeConnection] = []
        """All that were made, the closed ones included."""
        self._seen = 0

    @classmethod
    def always(cls) -> FakeConnector:
        """A connector whose dials succeed at once."""
        connector = cls()
        connector.answer = connector.new_connection
        return connector

    def new_connection(self) -> FakeConnection:
        """A connection with the next number, from 1."""
        connection = FakeConnection(len(self.connections) + 1)
        self.connections.append(connection)
        return connection

    @property
    def pending(self) -> list[FakeDial]:
        """The dials that still wait for their answer."""
        return [dial for dial in self.dials if dial.pending]

    @property
    def open(self) -> list[FakeConnection]:
        """The connections that were made and not closed."""
        return [connection for connection in self.connections if not connection.closes]

    async def __call__(self) -> FakeConnection:
        """Dial."""
        dial = FakeDial(self)
        self.dials.append(dial)
        return await dial._run(self.answer)

    async def next_dial(self) -> FakeDial:
        """The next dial in the order of their starts; AssertionError if all is quiet and there is none."""
        await settle()
        assert self._seen < len(self.dials), "no further dial was started"
        self._seen += 1
        return self.dials[self._seen - 1]
