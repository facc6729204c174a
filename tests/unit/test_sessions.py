import numpy as np

from core.sessions import Sessions


def open_sessions() -> Sessions:
    sessions = Sessions(3)
    times = np.array([1000, 2000, 3000])
    sessions.load(["ann", "bob", "cyd"], times, [[0], [1, 2], [2, 0, 1]])
    return sessions


def items_of(sessions: Sessions, user: str) -> list[int]:
    row = sessions.users[user]
    out: list[int] = sessions.items[row, : sessions.size[row]].tolist()
    return out


def test_sessions_end_by_age_or_with_an_item_that_they_name() -> None:
    sessions = open_sessions()
    sessions.end(2000, np.zeros(3, np.bool_))
    sessions.collect()
    assert sessions.users.keys() == {"bob", "cyd"}
    sessions.end(0, np.array([True, False, False]))
    sessions.collect()
    assert sessions.users.keys() == {"bob"}
    assert sessions.ended == ["ann", "cyd"]


def test_rows_of_sessions_that_ended_are_used_again_and_start_empty() -> None:
    sessions = open_sessions()
    sessions.end(2000, np.zeros(3, np.bool_))
    sessions.collect()
    row = sessions.intern(["dan"])
    assert sessions.size[row].tolist() == [0]
    assert len(sessions.names) == 3
    assert items_of(sessions, "bob") == [1, 2]


def test_renumbered_items_keep_sessions_unless_an_item_is_dropped() -> None:
    sessions = open_sessions()
    sessions.relabel(np.array([-1, 1, 0], np.int32))
    assert sessions.users.keys() == {"bob"}
    assert items_of(sessions, "bob") == [1, 0]
