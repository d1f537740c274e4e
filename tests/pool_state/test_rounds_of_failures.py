"""Dials that fail side by side are one round of failures: the pause of the automatic ones doubles once for it."""

from __future__ import annotations

import pytest

from wspool._dial_book import LONGEST_BACKOFF, DialBook
from wspool._jobs import Job, JobKind


def begin(book: DialBook[object], count: int = 1) -> list[int]:
    """So many dials begin; their numbers."""
    jobs: list[Job[object]] = [Job(JobKind.CONNECT, 0.0, 10.0) for _ in range(count)]
    for job in jobs:
        book.add(job, None)
    return [job.number for job in jobs]


def fail(book: DialBook[object], *dials: int) -> list[float]:
    """They fail, one after the other; the pause that begins with each failure."""
    pauses = list[float]()
    for dial in dials:
        book.note_failure(dial, 7.0, 0.0)
        pauses.append(round(book.retry_at - 7.0, 3))
    return pauses


@pytest.mark.parametrize("side_by_side", [1, 2, 3, 10])
def test_each_round_doubles_the_pause_however_many_dials_fail_in_it(side_by_side: int) -> None:
    book: DialBook[object] = DialBook()
    rounds = [fail(book, *begin(book, side_by_side)) for _ in range(12)]
    pauses = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, *[LONGEST_BACKOFF] * 3]
    assert rounds == [[pause] * side_by_side for pause in pauses]


def test_a_dial_that_began_before_the_failure_and_ends_after_it_belongs_to_its_round() -> None:
    book: DialBook[object] = DialBook()
    first, slow = begin(book, 2)
    assert fail(book, first) == [0.1]
    (second,) = begin(book)
    assert fail(book, slow) == [0.1], "it pauses anew, and no longer"
    assert fail(book, second) == [0.2]


def test_dials_that_always_overlap_are_rounds_nevertheless() -> None:
    """Otherwise two that take turns would be one round for ever, and the pause would never grow."""
    book: DialBook[object] = DialBook()
    running = begin(book, 2)
    pauses = list[float]()
    for _ in range(8):
        pauses += fail(book, running.pop(0))
        running += begin(book)
    assert pauses == [0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.8, 0.8]


def test_one_that_has_hung_through_several_rounds_does_not_count_at_its_end() -> None:
    book: DialBook[object] = DialBook()
    (slow,) = begin(book)
    assert [fail(book, *begin(book)) for _ in range(4)] == [[0.1], [0.2], [0.4], [0.8]]
    assert fail(book, slow) == [0.8]
    assert fail(book, *begin(book)) == [1.6]


def test_after_a_success_the_next_failure_is_the_first_again_whenever_its_dial_began() -> None:
    book: DialBook[object] = DialBook()
    first, slow, slower = begin(book, 3)
    fail(book, first, *begin(book))
    book.note_success()
    assert book.retry_at < 0
    assert fail(book, slow, slower) == [0.1, 0.1]
    assert fail(book, *begin(book, 2)) == [0.2, 0.2]


def test_of_each_round_one_failure_is_logged_and_a_success_only_after_a_failure() -> None:
    book: DialBook[object] = DialBook()
    assert not book.note_success(), "nothing was logged that it would end"
    first, second = begin(book, 2)
    fail(book, first)
    assert [book.tell(), book.tell()] == [True, False]
    fail(book, second)
    assert not book.tell()
    fail(book, *begin(book))
    assert book.tell()
    assert book.note_success()
    assert not book.note_success()


def test_a_failure_that_is_left_to_the_log_after_a_success_is_logged_nevertheless() -> None:
    """Its caller was cancelled in the same step, and another dial has succeeded meanwhile."""
    book: DialBook[object] = DialBook()
    fail(book, *begin(book))
    book.note_success()
    assert book.tell()
    assert not book.tell()
    fail(book, *begin(book))
    assert book.tell()
