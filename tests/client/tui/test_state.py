"""What happened, and whether a frame is worth drawing."""

from saltline.client.model import (
    CaughtUp,
    ConnectionChanged,
    ConnectionState,
    ConversationChanged,
    Event,
    LineAdded,
    PresenceChanged,
    Trust,
)
from saltline.client.tui.handover import Handover
from saltline.client.tui.state import PRESENCE_KEPT, Draft, ViewState
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import a_fake


def apply(state: ViewState, *events: Event) -> bool:
    handover = Handover(lambda: None)
    for event in events:
        handover.put(event)
    return state.apply(handover.take(), 100.0)


def on_bob() -> tuple[FakeMessenger, ViewState]:
    fake = a_fake()
    state = ViewState(fake)
    state.current = "@bob"
    return fake, state


def test_only_what_is_on_screen_is_worth_a_frame() -> None:
    _, state = on_bob()
    assert not apply(state)
    assert not apply(state, PresenceChanged("erin", True))
    assert apply(state, PresenceChanged("bob", True))
    assert apply(state, ConversationChanged("@carol"))
    assert apply(state, LineAdded("#lobby", 1))
    assert apply(state, CaughtUp())


def test_the_time_of_the_next_try_is_kept_as_a_moment() -> None:
    _, state = on_bob()
    assert apply(state, ConnectionChanged(ConnectionState.OFFLINE, "gone", 8.0))
    assert state.retry_at == 108.0
    assert apply(state, ConnectionChanged(ConnectionState.CONNECTING))
    assert state.retry_at is None


def test_a_contact_is_read_again_only_after_it_changed() -> None:
    fake, state = on_bob()
    for _ in range(10):
        state.contact("bob")
    assert fake.reads["contact"] == 1
    apply(state, ConversationChanged("@carol"), LineAdded("@bob", 1))
    state.contact("bob")
    assert fake.reads["contact"] == 1
    fake.meets("bob", Trust.CHANGED)
    apply(state, ConversationChanged("@bob"))
    assert state.contact("bob").trust is Trust.CHANGED


def test_the_order_is_fixed_so_that_places_can_be_learnt() -> None:
    fake, state = on_bob()
    fake.meets("aaron", request=True)
    fake.arrives("@carol", "carol", "newest")
    state.refresh_conversations()
    assert state.order() == ["@bob", "@carol", "@dave", "@aaron", "#dev", "#lobby"]


def test_the_next_unread_goes_around_and_skips_the_current() -> None:
    fake, state = on_bob()
    fake.arrives("@bob", "bob", "here")
    state.refresh_conversations()
    assert state.next_unread() is None
    fake.arrives("#dev", "erin", "there")
    fake.arrives("@carol", "carol", "and there")
    state.refresh_conversations()
    assert state.next_unread() == "@carol"
    state.current = "@carol"
    assert state.next_unread() == "#dev"
    state.current = "#lobby"
    assert state.next_unread() == "@bob"


def test_a_relay_that_names_a_million_people_does_not_fill_the_memory() -> None:
    _, state = on_bob()
    for start in range(0, PRESENCE_KEPT + 2000, 1000):
        apply(state, *(PresenceChanged(f"user{start + n}", True) for n in range(1000)))
    assert len(state.presence) == PRESENCE_KEPT
    assert "user0" not in state.presence


def test_a_draft_does_not_show_in_a_log() -> None:
    assert "secret" not in repr(Draft("secret", 3))
