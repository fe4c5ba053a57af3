"""What each command does, on a real screen."""

import pytest

from saltline.client.model import ConnectionState, Delivery, Refused
from saltline.client.tui.commands import COMMANDS
from saltline.protocol.to_client import Member, RoomInfo
from tests.client.tui.pilot import Pilot, a_fake, play

# --- Writing and rooms ----------------------------------------------------------------------------


def test_msg_sends_privately_and_stays() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/msg @carol see you at 8")
        await p.shows("To @carol, encrypted: queued on this disk.", "#lobby PUBLIC>")
        assert fake.called("send") == [("send", "carol", "see you at 8")]
        assert not fake.called("post")

    play(fake, script)


def test_a_name_that_cannot_be_is_said_to_be_one() -> None:
    async def script(p: Pilot) -> None:
        p.enter("/msg b@d hello")
        await p.shows("A user name has 2 to 32 characters", "Nothing was sent.")
        p.press("ctrl-c")
        p.enter("/join #no/room")
        await p.shows("A room is # and 2 to 32 characters")
        p.press("ctrl-c")
        p.enter("/query ada")
        await p.shows("That is you: nothing was done.")

    play(a_fake(), script)


def test_query_of_a_stranger_looks_the_key_up() -> None:
    fake = a_fake()
    fake.held = []

    async def script(p: Pilot) -> None:
        p.enter("/query newbie")
        await p.shows("@newbie encrypted>", "[no key yet]", "Nothing between you and newbie yet.")
        fake.answer()
        await p.shows("[first seen]")
        assert "newbie" in p.row("~ newbie")

    play(fake, script)


def test_query_of_nobody_says_so() -> None:
    fake = a_fake()
    fake.refusals["fetch_contact"] = Refused("There is no user nobody2 on this relay.")

    async def script(p: Pilot) -> None:
        p.enter("/query nobody2")
        await p.shows("There is no user nobody2 on this relay.")

    play(fake, script)


def test_join_opens_the_room_and_leave_says_what_stays() -> None:
    fake = a_fake()
    fake.held = []

    async def script(p: Pilot) -> None:
        p.enter("/join new-room")
        await p.settled()
        assert "#lobby PUBLIC>" in p.text()
        fake.answer()
        await p.shows("#new-room PUBLIC>")
        p.enter("/leave")
        await p.shows("You left #new-room.", "not a member: /join #new-room")
        await p.shows("#new-room PUBLIC, not a member>")
        assert fake.called("leave") == [("leave", "#new-room")]

    play(fake, script)


def test_a_room_that_was_joined_late_does_not_come_under_ones_fingers() -> None:
    fake = a_fake()
    fake.held = []

    async def script(p: Pilot) -> None:
        p.enter("/join #party")
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.type("my passphrase is")
        await p.shows("my passphrase is")
        fake.answer()
        await p.shows("You are a member of #party now. Alt-G goes there.")
        p.enter(" secret")
        await p.until(lambda: fake.called("send"))
        assert fake.called("send") == [("send", "bob", "my passphrase is secret")]
        assert not fake.called("post")

    play(fake, script)


def test_what_is_typed_in_a_room_that_one_left_is_not_sent() -> None:
    fake = a_fake()
    fake.enters("#dev", joined=False)

    async def script(p: Pilot) -> None:
        p.press("alt-4")
        await p.shows("#dev PUBLIC, not a member>")
        p.enter("anyone here?")
        await p.shows("Not sent: you are not a member of #dev. /join #dev")
        assert not fake.called("post")

    play(fake, script)


def test_leave_and_who_need_a_room() -> None:
    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        p.enter("/leave")
        await p.shows("Which room? /leave #ROOM")
        p.press("ctrl-c")
        p.enter("/who")
        await p.shows("Which room? /who #ROOM")

    play(a_fake(), script)


def test_rooms_and_who_are_panes_that_escape_closes() -> None:
    fake = a_fake()
    fake.room_list = (RoomInfo("#lobby", 42, 17, 9), RoomInfo("#quiet", 2, 0, 1))
    fake.members["#lobby"] = (Member("zoe", False), Member("bob", True))

    async def script(p: Pilot) -> None:
        p.enter("/rooms")
        await p.shows("Public rooms: Esc closes", "* #lobby", "42 members", "17 online")
        await p.escape()
        await p.hides("Public rooms")
        p.enter("/who")
        await p.shows("2 members of #lobby", "= bob", "online", "zoe")
        lines = p.lines()
        bob = next(i for i, row in enumerate(lines) if "= bob" in row and "online" in row)
        assert "zoe" in lines[bob + 1]

    play(fake, script)


# --- Finding --------------------------------------------------------------------------------------


def test_search_lists_and_f3_walks_through_all_conversations() -> None:
    fake = a_fake()
    fake.arrives("@bob", "bob", "the build is green")
    for number in range(100):
        fake.arrives("#lobby", "carol", f"chatter {number}")
    fake.arrives("#lobby", "carol", "which build was it")
    fake.mark_read("#lobby", 200)

    async def script(p: Pilot) -> None:
        p.enter("/search -a build")
        await p.shows("2 lines with 'build'", "@bob bob: the build is green")
        p.press("f3")
        await p.shows("Found 1 of 2", "which build was it")
        p.press("f3")
        await p.shows("Found 2 of 2", "@bob encrypted>")
        assert p.column_style("the build is green").reverse
        p.enter("/search build")
        await p.shows("1 line with 'build'")
        await p.escape()
        p.enter("/search nowhere")
        await p.shows("Nothing with 'nowhere' found.")

    play(fake, script)


def test_f3_asks_and_leaves_the_draft_alone() -> None:
    fake = a_fake()
    for number in range(300):
        fake.arrives("#lobby", "carol", f"needle {number}." if number == 7 else f"hay {number}")
    fake.mark_read("#lobby", 400)

    async def script(p: Pilot) -> None:
        p.type("a draft")
        p.press("f3")
        await p.shows("Find here:")
        p.enter("needle")
        await p.shows("Found 1 of 1", "needle 7.", "#lobby PUBLIC> a draft")
        await p.escape()
        await p.shows("hay 299")

    play(fake, script)


# --- The rest -------------------------------------------------------------------------------------


def test_queue_lists_what_waits_and_retry_takes_an_id() -> None:
    fake = a_fake()
    waits = fake.send("bob", "waits")
    fails = fake.send("bob", "fails")
    also = fake.send("bob", "fails too")
    for line in (fails, also):
        fake.reaches(line, Delivery.FAILED, "the relay is full")

    async def script(p: Pilot) -> None:
        p.enter("/queue")
        await p.shows("Not sent yet", f". {waits.short_id}", f"x {fails.short_id}")
        p.enter("/query bob")
        await p.shows("Not sent: the relay is full.")
        p.enter(f"/retry {also.short_id}")
        await p.shows("1 queued again.")
        assert fake.called("retry") == [("retry", also.row)]
        p.enter("/retry ffffffff")
        await p.shows("Nothing that failed here has that id.")

    play(fake, script)


def test_status_keeps_what_was_said() -> None:
    async def script(p: Pilot) -> None:
        p.enter("/nonsense")
        await p.shows("No command /nonsense")
        p.press("ctrl-c")
        p.enter("/status")
        await p.shows("relay.example:7443", "sha256:cdcd", "Said lately")
        await p.shows("No command /nonsense")

    play(a_fake(), script)


def test_the_link_and_its_next_try() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        await p.shows("online 23 ms  TLS 1.3")
        fake.connects(ConnectionState.OFFLINE, "connection refused", 8.4)
        await p.shows("offline, next try in 8 s: connection refused")
        assert "TLS" not in p.lines()[0]
        await p.shows("next try in 7 s")
        p.enter("/reconnect")
        await p.until(lambda: fake.called("reconnect"))
        fake.connects(ConnectionState.CONNECTING)
        await p.shows("connecting")
        fake.connects(ConnectionState.REFUSED, "the certificate does not match the pin")
        await p.shows(
            "refused, not tried again by itself: /reconnect", "the certificate does not match"
        )

    play(fake, script)


def test_what_is_typed_offline_is_queued_and_counted() -> None:
    fake = a_fake()
    fake.connects(ConnectionState.OFFLINE, "", 60.0)

    async def script(p: Pilot) -> None:
        p.enter("/query bob")
        await p.shows("@bob encrypted>")
        p.enter("later then")
        await p.shows("queue 1")
        assert p.row("later then").endswith(" .")

    play(fake, script)


def test_an_answer_that_fails_is_said() -> None:
    fake = a_fake()
    fake.refusals["join"] = Refused("#secret is closed. You are not a member.")

    async def script(p: Pilot) -> None:
        p.enter("/join #secret")
        await p.shows("#secret is closed. You are not a member.", "#lobby PUBLIC>")

    play(fake, script)


def test_help_lists_every_command_and_explains_one() -> None:
    async def script(p: Pilot) -> None:
        p.enter("/help")
        seen = ""
        await p.shows("Help: Esc closes")
        for _ in range(4):
            seen += p.text()
            p.press("pagedown")
            await p.settled()
        assert all(command.usage in seen for command in COMMANDS.values())
        assert all(part in seen for part in ("Alt-A", "Ctrl-Z", "queued on this disk", "++"))
        p.enter("/help verify")
        await p.shows("Help for /verify", "Compare in person or by telephone")
        p.enter("/help jion")
        await p.shows("No command /jion. Did you mean /help join?")

    play(a_fake(), script)


@pytest.mark.parametrize("theme", ["light", "mono", "colour-blind", "dark"])
def test_themes_change_at_once(theme: str) -> None:
    async def script(p: Pilot) -> None:
        other = "light" if theme == "dark" else "dark"
        p.enter(f"/theme {other}")
        await p.until(lambda: p.terminal.theme == other)
        await p.settled()
        before = p.column_style("#lobby PUBLIC>")
        p.enter(f"/theme {theme}")
        await p.until(lambda: p.terminal.theme == theme)
        await p.settled()
        assert p.column_style("#lobby PUBLIC>") != before
        p.enter("/theme pink")
        await p.shows("No theme 'pink'. Themes: dark, light, colour-blind, mono.")

    play(a_fake(), script)


def test_next_and_presence() -> None:
    fake = a_fake()
    fake.arrives("@bob", "bob", "psst")

    async def script(p: Pilot) -> None:
        p.enter("/next")
        await p.shows("@bob encrypted>", "psst")
        fake.presence("bob", True)
        await p.until(lambda: p.lines()[1].endswith("online"))
        fake.presence("bob", False)
        await p.until(lambda: p.lines()[1].endswith("offline"))

    play(fake, script)
