"""The window over an outbox: what goes out next, and what HQ's acknowledgements do to it."""

from __future__ import annotations

from storelink.contract.limits import BATCH_ENTRIES_MAX
from storelink.contract.upstream import Ack, Rejection
from storenode.core.send_window import ACK_TIMEOUT_MS, ACK_TIMEOUT_MS_MAX, IN_FLIGHT_MAX, RESEND_MS, Window

EPOCH = "019b76da1000-5f3c9a01"
NOW = 10_000


def ack(seq: int, *, resend: bool = False, rejected: Rejection | None = None) -> Ack:
    return Ack("s", EPOCH, seq, (), resend, rejected)


def sent(*lasts: int, acked: int = 0) -> Window:
    window = Window(acked)
    for last in lasts:
        assert window.entries_max() == BATCH_ENTRIES_MAX
        window.note_sent(last, NOW)
    return window


def test_the_window_is_bounded_and_an_ack_opens_it() -> None:
    window = sent(*range(10, 10 * IN_FLIGHT_MAX + 1, 10))
    assert window.entries_max() is None
    window.on_ack(ack(20), NOW)
    assert (window.acked, window.sent, window.entries_max()) == (20, 10 * IN_FLIGHT_MAX, BATCH_ENTRIES_MAX)


def test_an_older_ack_changes_nothing() -> None:
    window = sent(10, 20)
    window.on_ack(ack(20), NOW)
    window.on_ack(ack(10), NOW)
    assert (window.acked, window.sent) == (20, 20)


def test_an_ack_of_what_was_sent_before_a_restart_moves_the_window_past_it() -> None:
    window = Window(5)
    window.on_ack(ack(9), NOW)
    assert (window.acked, window.sent) == (9, 9)


def test_a_hole_is_sent_again_once_however_often_hq_says_so() -> None:
    window = sent(10, 20, 30)
    window.on_ack(ack(0, resend=True), NOW)
    assert window.sent == 0
    window.note_sent(10, NOW)
    window.on_ack(ack(0, resend=True), NOW + 1)
    assert window.sent == 10
    window.on_ack(ack(0, resend=True), NOW + RESEND_MS)
    assert window.sent == 0


def test_without_acknowledgements_one_entry_is_retried_with_backoff() -> None:
    window, now, waits = sent(10, 20), NOW, []
    for _ in range(6):
        began = now
        while not window.step(now):
            now += 500
        waits.append(now - began)
        assert (window.sent, window.entries_max()) == (0, 1)
        window.note_sent(1, now)
        assert window.entries_max() is None
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (ACK_TIMEOUT_MS, ACK_TIMEOUT_MS_MAX)
    window.on_ack(ack(1), now)
    assert (window.sent, window.entries_max()) == (1, BATCH_ENTRIES_MAX)


def test_of_a_rejected_batch_the_entries_go_one_by_one_until_the_one_is_found() -> None:
    window = sent(10, 20)
    assert window.on_ack(ack(0, rejected=Rejection(1, 10, "bad_json")), NOW) is None
    assert (window.sent, window.entries_max()) == (0, 1)
    window.note_sent(1, NOW)
    window.note_sent(2, NOW)
    window.on_ack(ack(1), NOW)
    assert window.on_ack(ack(1, rejected=Rejection(2, 2, "bad_json")), NOW) == 2
    assert window.sent == 1
    window.on_ack(ack(10), NOW)
    assert window.entries_max() == BATCH_ENTRIES_MAX


def test_a_rejection_of_what_is_acknowledged_is_old() -> None:
    window = sent(10)
    window.on_ack(ack(10), NOW)
    assert window.on_ack(ack(0, rejected=Rejection(3, 3, "bad_json")), NOW) is None
    assert (window.sent, window.entries_max()) == (10, BATCH_ENTRIES_MAX)


def test_a_new_line_begins_at_what_is_not_acknowledged() -> None:
    window = sent(10, 20, acked=5)
    window.on_ack(ack(10), NOW)
    window.reconnected(NOW)
    assert (window.sent, window.entries_max()) == (10, BATCH_ENTRIES_MAX)
