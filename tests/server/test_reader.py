"""What a reader holds against a peer, and what not."""

from time import monotonic

import pytest

from saltline.server.connection_table import ConnectionTable
from saltline.server.pace import Pace
from saltline.server.reader import Reader
from tests.server.scripted_tls import Tls, connection_on


@pytest.mark.parametrize("has_waited", [False, True])
def test_while_its_requests_wait_for_their_turn_a_frame_is_not_late(has_waited: bool) -> None:
    table = ConnectionTable(lambda _number: None, close_s=1.0)
    reader = Reader(table, Pace(0.0), frame_s=60.0)
    connection = connection_on(Tls())
    connection.frame_by_s = monotonic()  # behind whole ones it has sent a part of one
    if has_waited:
        reader.feed(connection)
    reader.check_frame(connection, monotonic())
    assert (connection.fault is None) == has_waited
    table.close()
