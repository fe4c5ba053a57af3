"""One target under libFuzzer, through atheris: python -m tests.fuzzing.run NAME LAUNCHER [FLAGS].

`__main__` starts this once for each target: libFuzzer ends its process, and starts LAUNCHER with
flags of its own to merge.
"""

import sys
from importlib import import_module


def main() -> None:
    """Instrument what is tried, then fuzz until libFuzzer ends the process."""
    atheris = import_module("atheris")  # not for every platform: no import at the top
    _, name, launcher, *flags = sys.argv
    parts = ["saltline", "tomllib", "tests.fuzzing"]
    with atheris.instrument_imports(include=parts, enable_loader_override=False):
        targets = import_module("tests.fuzzing.targets").TARGETS
    (target,) = [each for each in targets if each.name == name]
    mutate = target.mutate

    def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
        grown = mutate(data, seed) if seed % 4 else None
        if grown is None or len(grown) > max_size:
            grown = atheris.Mutate(data, max_size)
        return bytes(grown)

    options = {"custom_mutator": custom_mutator} if mutate is not None else {}
    atheris.Setup([launcher, *flags], target.fuzz_one, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
