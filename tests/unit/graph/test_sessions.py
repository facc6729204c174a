import numpy as np

from core.graph.sessions import Sessions


def open_sessions() -> Sessions:
    sessions = Sessions(3, 2)
    times, clicks = np.array([1000, 2000, 3000]), np.array([1, 7, 3], np.int32)
    ids = [np.array(some, np.uint64) for some in ([], [9], [8, 7])]
    sessions.load(["ann", "bob", "cyd"], times, clicks, [[0], [1, 2], [2, 0, 1]], ids)
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


def test_sessions_of_users_to_forget_end_at_once() -> None:
    sessions = open_sessions()
    row = sessions.users["bob"]
    sessions.forget(["bob", "nobody"])
    assert sessions.users.keys() == {"ann", "cyd"}
    assert sessions.ended == ["bob"]
    assert "bob" not in sessions.names
    assert sessions.intern(["dan"]).tolist() == [row]
    assert sessions.size[row] == 0
    assert items_of(sessions, "cyd") == [2, 0, 1]


def test_rows_of_sessions_that_ended_are_used_again_and_start_empty() -> None:
    sessions = open_sessions()
    sessions.end(2000, np.zeros(3, np.bool_))
    sessions.collect()
    row = sessions.intern(["dan"])
    assert sessions.size[row].tolist() == [0]
    assert len(sessions.names) == 3
    assert items_of(sessions, "bob") == [1, 2]


def test_a_checkpoint_gives_back_clicks_and_event_ids_to_a_row_that_had_others() -> None:
    sessions = open_sessions()
    row = sessions.users["cyd"]
    sessions.end(4000, np.zeros(3, np.bool_))
    sessions.collect()
    one, nothing = np.array([5], np.int32), np.zeros(0, np.uint64)
    sessions.load(["eve"], np.array([5000]), one, [[1]], [nothing])
    assert sessions.users == {"eve": row}
    assert sessions.clicks[row] == 5
    assert sessions.event_ids[row].tolist() == [0, 0]


def test_renumbered_items_keep_sessions_unless_an_item_is_dropped() -> None:
    sessions = open_sessions()
    sessions.relabel(np.array([-1, 1, 0], np.int32))
    assert sessions.users.keys() == {"bob"}
    assert items_of(sessions, "bob") == [1, 0]
