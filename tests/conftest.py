"""What all tests share: Hypothesis counts examples, not time, because machines differ."""

from hypothesis import settings

# Over the profile that Hypothesis chose itself: under CI=… it draws the same examples each time.
settings.register_profile("saltline", settings(), deadline=None)
settings.load_profile("saltline")
