"""Trust on the screen: requests, blocking, comparing, and keys that changed."""

from saltline.client.model import ConnectionState, Trust
from tests.client.tui.fake_messenger import fingerprint_of, number_of
from tests.client.tui.pilot import Pilot, a_fake, play


def test_a_request_is_labelled_and_accepted() -> None:
    fake = a_fake()
    fake.meets("mallory", request=True)
    fake.arrives("@mallory", "mallory", "hello stranger")

    async def script(p: Pilot) -> None:
        await p.shows("REQUESTS", "? mallory")
        p.enter("/query mallory")
        await p.shows("REQUEST from a stranger, who gets no receipt: /accept mallory or /block")
        p.type("/accept ")
        p.press("tab")
        await p.shows("encrypted> /accept mallory")
        p.press("enter")
        await p.shows("mallory gets receipts from now on.")
        await p.hides("REQUEST")
        assert fake.called("accept") == [("accept", "mallory")]

    play(fake, script)


def test_block_and_unblock() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/query carol")
        await p.shows("@carol encrypted>")
        p.enter("/block carol")
        await p.shows("- carol", "@carol blocked by you>", "[blocked]", "/unblock carol undoes it")
        p.enter("/unblock carol")
        await p.shows("~ carol", "@carol encrypted>", "no longer blocked")

    play(fake, script)


def test_verify_shows_the_number_and_only_y_agrees() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/verify carol")
        groups = number_of("carol").split()
        await p.shows("Safety number of ada and carol", " ".join(groups[:4]), " ".join(groups[8:]))
        await p.shows("Does carol read the very same number?", "Never compare it in the chat")
        p.press("enter")
        p.type("q")
        await p.escape()
        await p.hides("Does carol")
        assert not fake.called("verify")
        p.enter("/verify carol")
        await p.shows("Does carol")
        p.type("y")
        await p.shows("carol is verified.", "= carol")
        assert fake.called("verify") == [("verify", "carol", number_of("carol"))]

    play(fake, script)


def test_verify_of_a_stranger_asks_nothing_while_one_types_on() -> None:
    fake = a_fake()
    fake.held = []

    async def script(p: Pilot) -> None:
        p.enter("/verify newbie")
        p.type("yes")
        await p.shows("#lobby PUBLIC> yes")
        fake.answer()
        await p.shows("newbie's key is known now: /verify newbie shows the number.")
        p.type(", yes")
        await p.shows("#lobby PUBLIC> yes, yes")
        assert not fake.called("verify")

    play(fake, script)


def test_verify_with_a_number_checks_it() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/verify carol 12345")
        await p.shows("That is not the safety number of you and carol.", "~ carol")
        p.press("ctrl-c")
        p.enter(f"/verify carol {number_of('carol')}")
        await p.shows("carol is verified: the number is the same", "= carol")

    play(fake, script)


def test_a_changed_key_is_shown_everywhere_and_both_ways_out_work() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        await p.shows("! dave")
        p.enter("/query dave")
        await p.shows(
            "[KEY CHANGED]",
            "-> ",
            "Nothing is sent to dave until you decide.",
            "/verify dave",
            "@dave KEY CHANGED, sending is blocked>",
        )
        p.enter("/verify dave")
        await p.shows("dave's key changed. Nothing has been sent since.")
        await p.shows(f"was {fingerprint_of('dave')[:19]}")
        await p.shows(f"now {fingerprint_of('dave anew')[:19]}")
        p.type("n")
        await p.escape()
        await p.hides("was ")
        p.enter(f"/trust dave {number_of('dave')}")
        await p.shows("dave's new key is taken as first seen.", "~ dave", "@dave encrypted>")

    play(fake, script)


def test_fingerprints_contacts_and_the_qr_code() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/fingerprint")
        await p.shows("Your key:", "0a1b 2c3d 4e5f 6071")
        p.enter("/fingerprint carol")
        await p.shows("carol's key:", fingerprint_of("carol")[:39], "[first seen]")
        p.enter("/contacts")
        await p.shows("= bob", "verified", "! dave", "KEY CHANGED")
        p.enter("/qr")
        await p.shows("█ ▄▄▄▄▄ █")

    play(fake, script)


def test_a_verified_contact_that_changes_while_on_screen_blocks_the_prompt() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        fake.meets("bob", Trust.CHANGED)
        await p.shows("@bob KEY CHANGED, sending is blocked>", "! bob")

    play(fake, script)


def test_nobody_is_called_online_while_the_relay_is_out_of_reach() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.press("alt-1")
        fake.presence("bob", True)
        await p.until(lambda: p.row("[verified]").endswith("online"))
        for state in (ConnectionState.REFUSED, ConnectionState.OFFLINE, ConnectionState.CONNECTING):
            fake.connects(state)
            await p.until(lambda: p.row("[verified]") and not p.row("[verified]").endswith("line"))
            # Who came and went meanwhile is not known when the link is back.
            fake.connects(ConnectionState.ONLINE)
            await p.shows("TLS 1.3")
            assert not p.row("[verified]").endswith("line")
            fake.presence("bob", True)
            await p.until(lambda: p.row("[verified]").endswith("online"))

    play(fake, script)


def test_a_refused_link_says_that_it_waits_for_the_person() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        for detail in ("the certificate is another one", ""):
            fake.connects(ConnectionState.REFUSED, detail)
            await p.until(lambda d=detail: d in p.lines()[0])  # type: ignore[misc]
            assert "refused, not tried again by itself: /reconnect tries again" in p.lines()[0]
            await p.shows("Nothing is tried by itself: /reconnect tries again.")

    play(fake, script, columns=130)


def test_words_about_a_changed_key_go_when_somebody_decided() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/verify dave")
        await p.shows("dave's key changed. Nothing has been sent since.", "Does dave read")
        p.type("n")
        await p.hides("Does dave read")
        p.enter(f"/trust dave {number_of('dave')}")
        await p.shows("taken as first seen", "Safety number of ada and dave")
        await p.hides("dave's key changed")
        p.enter(f"/verify dave {number_of('dave')}")
        await p.shows("dave is verified", "= dave")
        await p.hides("Safety number of ada and dave")

    play(fake, script)


def test_the_number_to_compare_is_the_one_of_the_key_that_is_known_now() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/verify carol")
        await p.shows("Does carol read")
        fake.meets("carol", Trust.CHANGED)
        await p.shows("carol's key changed. Nothing has been sent since.")

    play(fake, script)
