import numpy as np

from core.graph.sessions import Sessions


def open_sessions() -> Sessions:
    """ann's last click came from partition 1, those of the others from 0."""
    sessions = Sessions(3, 2)
    rows = sessions.intern(["ann", "bob", "cyd"])
    sessions.time[rows] = [1000, 2000, 3000]
    sessions.clicks[rows] = [1, 7, 3]
    sessions.partition[rows] = [1, 0, 0]
    for row, items, ids in zip(rows, ([0], [1, 2], [2, 0, 1]), ([], [9], [8, 7]), strict=True):
        sessions.items[row, : len(items)], sessions.size[row] = items, len(items)
        sessions.event_ids[row, : len(ids)] = ids
    return sessions


def items_of(sessions: Sessions, user: str) -> list[int]:
    row = sessions.users[user]
    out: list[int] = sessions.items[row, : sessions.size[row]].tolist()
    return out


def test_sessions_end_with_an_item_that_they_name() -> None:
    sessions = open_sessions()
    sessions.end_with(np.array([True, False, False]))
    assert sessions.users.keys() == {"bob"}


def test_sessions_of_users_to_forget_end_at_once() -> None:
    sessions = open_sessions()
    row = sessions.users["bob"]
    sessions.forget(["bob", "nobody"])
    assert sessions.users.keys() == {"ann", "cyd"}
    assert "bob" not in sessions.names
    assert sessions.intern(["dan"]).tolist() == [row]
    assert sessions.size[row] == 0
    assert items_of(sessions, "cyd") == [2, 0, 1]


def test_rows_of_sessions_that_ended_are_used_again_and_start_empty() -> None:
    sessions = open_sessions()
    sessions.forget(["ann"])
    row = sessions.intern(["dan"])
    assert sessions.size[row].tolist() == [0]
    assert len(sessions.names) == 3
    assert items_of(sessions, "bob") == [1, 2]


def test_renumbered_items_keep_sessions_unless_an_item_is_dropped() -> None:
    sessions = open_sessions()
    sessions.relabel(np.array([-1, 1, 0], np.int32))
    assert sessions.users.keys() == {"bob"}
    assert items_of(sessions, "bob") == [1, 0]
