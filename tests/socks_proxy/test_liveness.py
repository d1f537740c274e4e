"""Liveness: the dead are found within the limits, the slow and the blocked are not taken for dead."""

from __future__ import annotations

import pytest

from examples.socks_proxy.liveness import (
    CLIENT_PING_AFTER,
    FRESH,
    PATIENCE,
    SERVER_PING_AFTER,
    Liveness,
    SleepDetector,
    Verdict,
    reuse_patience,
)


def test_silence_is_broken_by_one_ping_and_ended_after_the_patience() -> None:
    tunnel = Liveness(0.0)
    assert tunnel.next_deadline == CLIENT_PING_AFTER
    assert tunnel.expire(19.9) is Verdict.FINE
    assert tunnel.expire(20.0) is Verdict.PING
    assert tunnel.next_deadline == 20.0 + PATIENCE
    assert tunnel.expire(29.9) is Verdict.FINE
    assert tunnel.expire(30.0) is Verdict.DEAD


def test_any_byte_is_a_sign_of_life() -> None:
    tunnel = Liveness(0.0, ping_after=SERVER_PING_AFTER)
    tunnel.heard(44.0)
    assert tunnel.expire(45.0) is Verdict.FINE
    assert tunnel.expire(89.0) is Verdict.PING
    tunnel.heard(98.9)
    assert tunnel.expire(99.0) is Verdict.FINE
    assert tunnel.next_deadline == pytest.approx(98.9 + SERVER_PING_AFTER)


def test_while_nothing_is_read_no_deadline_runs() -> None:
    tunnel = Liveness(0.0)
    tunnel.stop_reading(15.0)
    tunnel.stop_reading(100.0)
    assert tunnel.next_deadline is None
    assert tunnel.expire(1000.0) is Verdict.FINE
    tunnel.go_on_reading(1000.0)
    tunnel.go_on_reading(1001.0)
    assert tunnel.next_deadline == 1005.0
    assert tunnel.expire(1005.0) is Verdict.PING
    tunnel.stop_reading(1010.0)
    tunnel.go_on_reading(2010.0)
    assert tunnel.next_deadline == 2015.0
    assert tunnel.expire(2015.0) is Verdict.DEAD


def test_a_tunnel_that_was_silent_for_five_seconds_is_used_with_a_ping() -> None:
    tunnel = Liveness(0.0)
    assert not tunnel.needs_ping(FRESH)
    assert tunnel.needs_ping(FRESH + 0.1)
    tunnel.heard(6.0)
    assert not tunnel.needs_ping(6.0)


@pytest.mark.parametrize(("round_trip", "patience"), [(0.0, 1.0), (0.18, 1.0), (0.25, 1.25), (1.0, 4.25), (7.0, 5.0)])
def test_after_open_and_ping_a_byte_is_due_within_four_round_trips(round_trip: float, patience: float) -> None:
    assert reuse_patience(round_trip) == patience
    tunnel = Liveness(0.0)
    tunnel.pinged(10.0, patience)
    assert tunnel.expire(10.0 + patience - 0.01) is Verdict.FINE
    assert tunnel.expire(10.0 + patience) is Verdict.DEAD


def test_a_later_ping_does_not_give_a_dead_tunnel_more_time() -> None:
    tunnel = Liveness(0.0)
    tunnel.pinged(10.0, 1.0)
    tunnel.pinged(10.5)
    assert tunnel.next_deadline == 11.0
    tunnel.heard(10.6)
    tunnel.pinged(12.0)
    tunnel.pinged(12.5, 1.0)
    assert tunnel.next_deadline == 13.5


def test_siblings_last_heard_before_the_dead_one_are_suspect_until_they_are_heard() -> None:
    dead, older, newer = Liveness(2.0), Liveness(1.0), Liveness(3.0)
    for sibling in (older, newer):
        sibling.suspect_if_older(dead)
    assert older.needs_ping(3.0)
    assert not newer.needs_ping(3.0)
    older.heard(3.0)
    assert not older.needs_ping(3.0)


def test_what_was_suspect_stays_so_when_another_dies() -> None:
    tunnel = Liveness(5.0)
    tunnel.suspect = True
    tunnel.suspect_if_older(Liveness(1.0))
    assert tunnel.suspect


def test_a_wall_clock_that_gains_ten_seconds_tells_of_a_suspended_machine_once() -> None:
    detector = SleepDetector(100.0, 5000.0)
    assert not detector.was_suspended(200.0, 5110.0)
    assert detector.was_suspended(201.0, 5121.1)
    assert not detector.was_suspended(202.0, 5122.1)


def test_a_wall_clock_that_is_set_back_tells_nothing() -> None:
    detector = SleepDetector(100.0, 5000.0)
    assert not detector.was_suspended(101.0, 1000.0)
    assert not detector.was_suspended(102.0, 1001.0)
