"""The session rules one by one: what honest ends never do, and what depends on sizes and time.

What two honest ends can do to each other is explored in test_session_exhaustive.py.
"""

from __future__ import annotations

import tracemalloc
from ipaddress import IPv4Address
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from examples.socks_proxy.addresses import UNKNOWN, Address
from examples.socks_proxy.codes import CloseCode, Code, Command
from examples.socks_proxy.effects import (
    AbortLocal,
    CancelDial,
    CloseTunnel,
    Deliver,
    Effect,
    EndLocal,
    Send,
    SessionOpened,
    SessionRefused,
    StartDial,
)
from examples.socks_proxy.packets import (
    MAX_DATA_SENT,
    Bound,
    Data,
    Datagram,
    Fin,
    Goaway,
    Open,
    Opened,
    Packet,
    Ping,
    Pong,
    Refused,
    Reset,
)
from examples.socks_proxy.session import (
    DRAIN_BYTES,
    DRAIN_TIME,
    EARLY_BYTES,
    MAX_AGE,
    ClientTunnel,
    ServerTunnel,
    TunnelState,
    next_session,
)

TARGET = Address(IPv4Address("192.0.2.1"), 80)
BOUND = Address(IPv4Address("198.51.100.2"), 4711)
KIBIBYTE = bytes(1024)


def opening_client() -> ClientTunnel:
    client = ClientTunnel(0.0)
    client.open(TARGET, now=0.0)
    return client


def open_client() -> ClientTunnel:
    client = opening_client()
    client.receive(Opened(1, 7, BOUND), 0.0)
    return client


def dialling_server() -> ServerTunnel:
    server = ServerTunnel(0.0)
    server.receive(Open(1, 1, TARGET), 0.0)
    return server


def open_server() -> ServerTunnel:
    server = dialling_server()
    server.dial_succeeded(1, 7, BOUND)
    return server


def idle_client() -> ClientTunnel:
    client = open_client()
    client.local_end(1)
    client.receive(Fin(1), 0.0)
    return client


def idle_server() -> ServerTunnel:
    server = open_server()
    server.local_end(1)
    server.receive(Fin(1), 0.0)
    return server


def closing(effects: list[Effect]) -> CloseCode:
    """The code that the last effect closes the tunnel with."""
    assert isinstance(effects[-1], CloseTunnel)
    return effects[-1].close_code


# --- one session, from end to end -----------------------------------------------------------------


def test_a_session_as_the_client_sees_it() -> None:
    client = ClientTunnel(0.0)
    assert client.open(TARGET, deadline=100, now=0.0) == [Send(Open(1, Command.CONNECT, TARGET, 100))]
    assert client.state is TunnelState.OPENING
    assert client.local_data(1, b"early") == [Send(Data(1, b"early"))]
    assert client.receive(Opened(1, 7, BOUND), 0.0) == [SessionOpened(1, 7, BOUND)]
    assert client.receive(Data(1, b"hello"), 0.0) == [Deliver(1, b"hello")]
    assert client.local_end(1) == [Send(Fin(1))]
    assert client.receive(Data(1, b"still"), 0.0) == [Deliver(1, b"still")]
    assert not client.is_reusable(0.0)
    assert client.receive(Fin(1), 0.0) == [EndLocal(1)]
    assert client.is_reusable(0.0)
    assert client.open(TARGET, now=0.0) == [Send(Open(2, Command.CONNECT, TARGET))]


def test_a_session_as_the_server_sees_it() -> None:
    server = ServerTunnel(0.0)
    request = Open(1, 1, TARGET, 100)
    assert server.receive(request, 0.0) == [StartDial(request)]
    assert server.receive(Data(1, b"early"), 0.0) == []
    assert server.receive(Ping(b"12345678"), 0.0) == [Send(Pong(b"12345678"))]
    assert server.receive(Fin(1), 0.0) == []
    assert not server.may_send
    assert server.dial_succeeded(1, 7, BOUND) == [Send(Opened(1, 7, BOUND)), Deliver(1, b"early"), EndLocal(1)]
    assert server.local_data(1, b"hello") == [Send(Data(1, b"hello"))]
    assert server.local_end(1) == [Send(Fin(1))]
    assert server.is_reusable(0.0)


def test_a_refusal_costs_no_tunnel_and_is_answered_by_fin() -> None:
    server, client = dialling_server(), opening_client()
    refused = Refused(1, Code.CONNECTION_REFUSED, "no")
    assert server.dial_failed(1, Code.CONNECTION_REFUSED, "no", now=0.0) == [Send(refused)]
    assert client.receive(refused, 0.0) == [Send(Fin(1)), SessionRefused(1, 5, "no", retry_is_safe=False)]
    assert server.receive(Fin(1), 0.0) == []
    assert server.is_reusable(0.0)
    assert client.is_reusable(0.0)


def test_a_reset_while_dialling_cancels_the_dial_and_is_answered() -> None:
    server = dialling_server()
    server.receive(Data(1, b"early"), 0.0)
    assert server.receive(Reset(1, 0x1B), 0.0) == [Send(Reset(1, Code.CANCELLED)), CancelDial(1)]
    assert server.is_reusable(0.0)
    (late,) = server.dial_succeeded(1, 7, BOUND)
    assert isinstance(late, AbortLocal)


def test_a_reset_resets_the_local_side() -> None:
    assert open_client().receive(Reset(1, 0x19, "why"), 0.0) == [
        Send(Reset(1, Code.CANCELLED)),
        AbortLocal(1, 0x19, "why"),
    ]


def test_stop_sending_may_follow_fin() -> None:
    client, server = open_client(), open_server()
    client.local_end(1)
    server.receive(Fin(1), 0.0)
    reset = Reset(1, Code.LOCAL_CLIENT_GONE)
    assert client.local_abort(1, Code.LOCAL_CLIENT_GONE, now=0.0) == [Send(reset)]
    assert server.receive(reset, 0.0) == [Send(Reset(1, Code.CANCELLED)), AbortLocal(1, 0x1B, "")]
    assert client.local_abort(1, Code.LOCAL_CLIENT_GONE, now=0.0) == []
    assert client.wants_packets
    assert client.receive(Data(1, b"dropped"), 0.0) == []
    assert client.receive(Reset(1, Code.CANCELLED), 0.0) == []
    assert client.is_reusable(0.0)


@pytest.mark.parametrize("command", [Command.BIND, Command.UDP_ASSOCIATE, 4, 255])
def test_a_command_that_is_not_supported_is_refused_and_costs_no_tunnel(command: int) -> None:
    server = ServerTunnel(0.0)
    (effect,) = server.receive(Open(1, command, TARGET), 0.0)
    assert isinstance(effect, Send)
    assert isinstance(effect.packet, Refused)
    assert effect.packet.code == Code.COMMAND_NOT_SUPPORTED
    assert server.receive(Fin(1), 0.0) == []
    assert server.is_reusable(0.0)


def test_numbers_go_round_past_zero() -> None:
    assert [next_session(session) for session in (0, 1, 65534, 65535)] == [1, 2, 65535, 1]
    client, server = ClientTunnel(0.0), ServerTunnel(0.0)
    client.session = server.session = 65535
    request = Open(1, Command.CONNECT, TARGET)
    assert client.open(TARGET, now=0.0) == [Send(request)]
    assert server.receive(request, 0.0) == [StartDial(request)]


# --- what closes the tunnel (rules 2, 7 and 8) ----------------------------------------------------


VIOLATIONS: list[Any] = [
    (open_client, Data(2, b"x"), 4001, "data of another session"),
    (open_client, Fin(2), 4001, "end of another session"),
    (open_client, Reset(2, 1), 4001, "reset of a session that has not begun"),
    (open_server, Reset(65535, 1), 4001, "reset of a session that never was"),
    (opening_client, Data(1, b"x"), 4001, "data before OPENED"),
    (opening_client, Fin(1), 4001, "end before OPENED"),
    (opening_client, Opened(2, 0, BOUND), 4001, "OPENED of another session"),
    (idle_client, Data(1, b"x"), 4001, "data after the end"),
    (idle_client, Fin(1), 4001, "end after the end"),
    (idle_client, Opened(1, 0, BOUND), 4001, "OPENED after the end"),
    (idle_server, Data(1, b"x"), 4001, "early data before OPEN"),
    (idle_server, Open(1, 1, TARGET), 4001, "the same session again"),
    (idle_server, Open(3, 1, TARGET), 4001, "a session left out"),
    (open_server, Open(2, 1, TARGET), 4001, "a session within a session"),
    (dialling_server, Open(2, 1, TARGET), 4001, "a session while dialling"),
    (open_client, Opened(1, 0, BOUND), 1002, "OPENED twice"),
    (open_client, Refused(1, 5), 1002, "REFUSED after OPENED"),
    (open_client, Open(2, 1, TARGET), 1002, "OPEN from a server"),
    (open_server, Opened(1, 0, BOUND), 1002, "OPENED from a client"),
    (open_server, Refused(1, 5), 1002, "REFUSED from a client"),
    (open_client, Bound(1, BOUND), 1002, "BOUND without BIND"),
    (open_server, Datagram(1, TARGET, b""), 1002, "a datagram without an association"),
]


@pytest.mark.parametrize(("make", "packet", "code"), [pytest.param(*v[:3], id=v[3]) for v in VIOLATIONS])
def test_what_breaks_the_protocol_closes_the_tunnel(make: Any, packet: Packet, code: int) -> None:
    tunnel = make()
    running = not tunnel.is_idle
    assert not (isinstance(packet, Data) and tunnel.takes_data(packet.session))
    effects = tunnel.receive(packet, 0.0)
    assert closing(effects) == code
    assert len(effects) == 1 + running  # and what runs is aborted, refused or cancelled
    assert tunnel.state is TunnelState.CLOSED
    assert not tunnel.is_reusable(0.0)
    assert tunnel.receive(packet, 0.0) == []
    assert not tunnel.takes_data(tunnel.session)


def test_a_second_reset_is_no_late_one() -> None:
    client = open_client()
    client.receive(Reset(1, 1), 0.0)
    assert closing(client.receive(Reset(1, 1), 0.0)) == 4001


def test_a_late_reset_of_the_session_before_is_ignored_once() -> None:
    client = idle_client()
    client.open(TARGET, now=0.0)
    assert client.receive(Reset(1, 1), 0.0) == []
    assert closing(client.receive(Reset(1, 1), 0.0)) == 4001


def test_no_reset_of_the_session_before_can_be_late_if_it_was_reset() -> None:
    client = open_client()
    client.receive(Reset(1, 1), 0.0)
    client.open(TARGET, now=0.0)
    assert closing(client.receive(Reset(1, 1), 0.0)) == 4001


def test_nothing_happens_on_a_closed_tunnel() -> None:
    for tunnel in (open_client(), open_server(), draining_client()):
        tunnel.close(CloseCode.INTERNAL_ERROR, "for the test")
        assert tunnel.close(CloseCode.DONE, "again") == []
        assert tunnel.tunnel_lost("gone") == []
        assert tunnel.local_data(1, b"x") == tunnel.local_end(1) == []
        assert tunnel.local_abort(1, 1, now=0.0) == tunnel.ping(0.0) == tunnel.go_away(1, 1) == []
        assert tunnel.expire(1e9) == []
        assert tunnel.next_deadline is None


def test_closing_takes_the_session_along() -> None:
    assert [type(effect) for effect in open_server().close(CloseCode.IDLE, "idle")] == [AbortLocal, CloseTunnel]
    assert [type(effect) for effect in dialling_server().close(CloseCode.IDLE, "idle")] == [CancelDial, CloseTunnel]
    assert [type(effect) for effect in idle_server().close(CloseCode.IDLE, "idle")] == [CloseTunnel]


_OF_SESSIONS: list[Any] = [
    (Open, st.sampled_from([1, 1, 2]), st.just(TARGET)),
    (Opened, st.just(1), st.just(UNKNOWN)),
    (Refused, st.just(5), st.just(""), st.booleans()),
    (Data, st.binary(max_size=2)),
    (Fin,),
    (Reset, st.just(1)),
    (Datagram, st.just(TARGET), st.just(b"")),
    (Bound, st.just(TARGET)),
]
PACKETS: st.SearchStrategy[Any] = st.one_of(
    *(st.builds(kind, st.integers(1, 3), *rest) for kind, *rest in _OF_SESSIONS),
    st.builds(Ping, st.just(bytes(8))),
    st.builds(Pong, st.sampled_from([bytes(8), b"\0" * 7 + b"\1"])),
    st.builds(Goaway, st.just(1), st.just(0)),
)


@given(
    packets=st.lists(
        PACKETS | st.sampled_from(["dial", "fail", "data", "end", "abort", "open", "expire"]), max_size=20
    ),
    is_client=st.booleans(),
)
def test_no_packets_in_any_order_do_more_than_close_the_tunnel(packets: list[Any], is_client: bool) -> None:
    tunnel: Any = ClientTunnel(0.0) if is_client else ServerTunnel(0.0)
    facts: dict[str, Any] = {
        "data": lambda: tunnel.local_data(tunnel.session, b"x"),
        "end": lambda: tunnel.local_end(tunnel.session),
        "abort": lambda: tunnel.local_abort(tunnel.session, 1, now=0.0),
        "expire": lambda: tunnel.expire(0.0),
    }
    if is_client:
        facts["open"] = lambda: tunnel.open(TARGET, now=0.0) if tunnel.is_reusable(0.0) else []
    else:
        facts["dial"] = lambda: tunnel.dial_succeeded(tunnel.session, 1, BOUND)
        facts["fail"] = lambda: tunnel.dial_failed(tunnel.session, 1, now=0.0)
    for packet in packets:
        was_closed = tunnel.closed
        effects = facts.get(packet, list)() if isinstance(packet, str) else tunnel.receive(packet, 0.0)
        closes = [number for number, effect in enumerate(effects) if isinstance(effect, CloseTunnel)]
        assert closes in ([], [len(effects) - 1])
        assert bool(closes) == (tunnel.closed and not was_closed)
        assert not was_closed or [effect for effect in effects if not isinstance(effect, AbortLocal)] == []


# --- the drain budget (rule 4) --------------------------------------------------------------------


def draining_client(round_trip: float = 0.0) -> ClientTunnel:
    client = open_client()
    client.ping(0.0)
    client.receive(Pong((1).to_bytes(8, "big")), round_trip)
    client.local_abort(1, Code.LOCAL_CLIENT_GONE, now=100.0)
    return client


@pytest.mark.parametrize(("round_trip", "patience"), [(0.0, DRAIN_TIME), (0.4, DRAIN_TIME), (0.6, 2.4)])
def test_who_has_reset_waits_two_seconds_or_four_round_trips(round_trip: float, patience: float) -> None:
    client = draining_client(round_trip)
    assert client.state is TunnelState.DRAINING
    assert not client.is_reusable(100.0)
    deadline = client.next_deadline
    assert deadline is not None
    assert deadline == pytest.approx(100.0 + patience)
    assert client.expire(deadline - 0.01) == []
    assert closing(client.expire(deadline)) == CloseCode.DRAIN_BUDGET_SPENT


def test_who_has_reset_drops_a_mebibyte_and_no_more() -> None:
    client = draining_client()
    for _ in range(DRAIN_BYTES // 1024):
        assert client.receive(Data(1, KIBIBYTE), 100.0) == []
    assert closing(client.receive(Data(1, b"x"), 100.0)) == CloseCode.DRAIN_BUDGET_SPENT


@pytest.mark.parametrize("end", [Fin(1), Reset(1, 1)])
def test_the_far_end_s_end_ends_the_drain(end: Packet) -> None:
    client = draining_client()
    assert client.receive(end, 101.0) == []
    assert client.next_deadline is None
    assert client.is_reusable(101.0)


def test_a_refusal_drains_the_early_data_as_a_reset_does() -> None:
    server = dialling_server()
    server.dial_failed(1, Code.CONNECTION_REFUSED, now=100.0)
    assert server.receive(Data(1, b"early"), 100.0) == []
    assert server.next_deadline == 100.0 + DRAIN_TIME
    server.receive(Fin(1), 100.0)
    assert server.next_deadline is None


# --- early data (rule 6) --------------------------------------------------------------------------


def test_a_dialling_server_keeps_64_kib_and_then_stops_reading() -> None:
    server = dialling_server()
    for _ in range(EARLY_BYTES // 1024):
        assert server.wants_packets
        assert server.receive(Data(1, KIBIBYTE), 0.0) == []
    assert not server.wants_packets
    delivered = server.dial_succeeded(1, 7, BOUND)[1:]
    assert delivered == [Deliver(1, bytes(EARLY_BYTES))]
    assert server.wants_packets


def test_early_data_takes_no_more_memory_in_parts_of_one_byte() -> None:
    server = dialling_server()
    tracemalloc.start()
    try:
        for _ in range(EARLY_BYTES):
            # As they are read: a part of its own each, of which the payload is a view.
            server.receive(Data(1, memoryview(bytes(5))[4:]), 0.0)
        assert tracemalloc.get_traced_memory()[0] < 2 * EARLY_BYTES
    finally:
        tracemalloc.stop()


def test_a_failed_dial_makes_room() -> None:
    server = dialling_server()
    server.receive(Data(1, bytes(EARLY_BYTES)), 0.0)
    server.dial_failed(1, Code.TIMED_OUT, now=0.0)
    assert server.wants_packets


def test_a_server_that_gives_up_its_dial_refuses() -> None:
    server = dialling_server()
    assert server.local_abort(1, Code.TIMED_OUT, "10 s", now=0.0) == [
        CancelDial(1),
        Send(Refused(1, Code.TIMED_OUT, "10 s")),
    ]


# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True])
def test_a_lost_tunnel_may_be_replaced_while_no_early_data_went_out(early: bool) -> None:
    client = opening_client()
    if early:
        client.local_data(1, b"x")
    else:
        client.local_data(1, b"")
        client.local_end(1)
    assert client.tunnel_lost("gone") == [SessionRefused(1, Code.GENERAL_FAILURE, "gone", retry_is_safe=not early)]


def test_early_data_of_an_earlier_session_does_not_count() -> None:
    client = opening_client()
    client.local_data(1, b"x")
    client.receive(Refused(1, 5), 0.0)
    client.open(TARGET, now=0.0)
    assert client.tunnel_lost("gone") == [SessionRefused(2, Code.GENERAL_FAILURE, "gone", retry_is_safe=True)]


def test_an_open_session_is_never_tried_again() -> None:
    assert open_client().tunnel_lost("gone") == [AbortLocal(1, Code.GENERAL_FAILURE, "gone")]


@pytest.mark.parametrize("safe", [False, True])
def test_the_retry_flag_of_a_refusal_is_told(safe: bool) -> None:
    effects = opening_client().receive(Refused(1, Code.GOING_AWAY, "", safe), 0.0)
    assert effects[-1] == SessionRefused(1, Code.GOING_AWAY, "", safe)


# --- reuse, goaway and pings (rule 10) ------------------------------------------------------------


def test_a_tunnel_that_is_too_old_begins_no_session() -> None:
    client = ClientTunnel(10.0)
    assert client.is_reusable(10.0 + MAX_AGE - 0.01)
    assert not client.is_reusable(10.0 + MAX_AGE)
    assert not ClientTunnel(0.0, max_age=5.0).is_reusable(5.0)


def test_after_goaway_the_session_finishes_and_no_other_begins() -> None:
    client = open_client()
    assert client.receive(Goaway(0x15, 1000), 0.0) == []
    assert client.local_data(1, b"x") == [Send(Data(1, b"x"))]
    client.local_end(1)
    client.receive(Fin(1), 0.0)
    assert client.is_idle
    assert not client.is_reusable(0.0)
    with pytest.raises(RuntimeError, match="ClientTunnel, IDLE, session 1, sent FIN, got FIN"):
        client.open(TARGET, now=0.0)


def test_an_open_that_crosses_goaway_is_refused_and_may_be_retried() -> None:
    server = ServerTunnel(0.0)
    assert server.go_away(Code.GOING_AWAY, 1000) == [Send(Goaway(Code.GOING_AWAY, 1000))]
    assert server.go_away(Code.GOING_AWAY, 1000) == []
    (effect,) = server.receive(Open(1, 1, TARGET), 0.0)
    assert isinstance(effect, Send)
    assert isinstance(effect.packet, Refused)
    assert (effect.packet.code, effect.packet.retry_is_safe) == (Code.GOING_AWAY, True)


def test_a_pong_measures_the_round_trip_of_the_last_ping_only() -> None:
    client = ClientTunnel(0.0)
    (first,), (second,) = client.ping(1.0), client.ping(2.0)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert first.packet != second.packet
    assert client.receive(Pong((1).to_bytes(8, "big")), 2.5) == []
    assert client.round_trip == 0.0
    client.receive(Pong((2).to_bytes(8, "big")), 2.5)
    assert client.round_trip == 0.5


def test_more_than_fits_into_one_data_goes_out_in_several() -> None:
    client = open_client()
    spoken = Random(1).randbytes(2 * MAX_DATA_SENT + 1)
    sent = [effect.packet for effect in client.local_data(1, spoken) if isinstance(effect, Send)]
    assert [len(packet.payload) for packet in sent if isinstance(packet, Data)] == [MAX_DATA_SENT, MAX_DATA_SENT, 1]
    assert b"".join(packet.payload for packet in sent if isinstance(packet, Data)) == spoken
