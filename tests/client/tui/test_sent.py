"""What became of a message to somebody else than the one on screen."""

from saltline.client.model import Delivery
from tests.client.tui.fake_messenger import FakeMessenger
from tests.client.tui.pilot import Pilot, a_fake, play


def test_what_is_said_of_a_message_elsewhere_follows_it() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/msg carol hi")
        await p.shows("To @carol, encrypted: queued on this disk. /query carol shows it.")
        (line,) = fake.page("@carol", limit=9)
        for delivery, words in (
            (Delivery.RELAYED, "on the relay"),
            (Delivery.DELIVERED, "delivered"),
            (Delivery.READ, "read"),
        ):
            fake.reaches(line, delivery)
            await p.shows(f"- To @carol, encrypted: {words}.")
            assert p.text().count("To @carol") == 1

    play(fake, script)


def test_what_failed_at_once_does_not_stay_queued_above_the_prompt() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/msg zzz9 hi")
        await p.shows("To @zzz9, encrypted: queued on this disk.")
        (line,) = fake.page("@zzz9", limit=9)
        fake.reaches(line, Delivery.FAILED, "there is no zzz9 on this relay")
        await p.shows("! To @zzz9: Not sent: there is no zzz9 on this relay. /query zzz9 shows it.")
        assert "queued on" not in p.text()
        p.enter("/status")
        await p.shows("Said lately")
        assert "queued on" not in p.text()

    play(fake, script)


def test_a_failure_is_marked_in_the_sidebar_until_one_looks() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        p.enter("/msg carol hi")
        await p.shows("To @carol")
        (line,) = fake.page("@carol", limit=9)
        fake.reaches(line, Delivery.FAILED, "no room")
        await p.until(lambda: p.row("~ carol").split("|")[0].split() == ["~", "carol", "x"])
        fake.arrives("@carol", "carol", "hello?")
        await p.until(lambda: p.row("~ carol").split("|")[0].split() == ["~", "carol", "x", "1"])
        p.press("alt-2")
        await p.shows("@carol encrypted>", "Not sent: no room")
        await p.until(lambda: p.row("~ carol").split("|")[0].split() == [">~", "carol"])
        p.press("alt-1")
        await p.shows("@bob encrypted>")
        await p.until(lambda: p.row("~ carol").split("|")[0].split() == ["~", "carol"])

    play(fake, script)


def test_what_is_sent_again_is_no_longer_marked() -> None:
    fake = a_fake()

    async def script(p: Pilot) -> None:
        line = fake.send("carol", "hi")
        fake.reaches(line, Delivery.FAILED, "no room")
        await p.until(lambda: p.row("~ carol").split("|")[0].split() == ["~", "carol", "x"])
        fake.retry(line.row)
        await p.until(lambda: p.row("~ carol").split("|")[0].split() == ["~", "carol"])

    play(fake, script)


def test_without_a_sidebar_the_bar_says_where_something_failed() -> None:
    fake = FakeMessenger()
    fake.meets("bob")
    fake.enters("#lobby")

    async def script(p: Pilot) -> None:
        fake.reaches(fake.send("bob", "hi"), Delivery.FAILED, "no room")
        await p.until(lambda: "@bob x" in p.lines()[0])

    play(fake, script, columns=50)
