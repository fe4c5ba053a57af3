"""A first look: python -m benchmarks.relay.rough [window=256|rate=100|pairs|offline|idle] [s]"""

import json, sys
from benchmarks.relay import saltline_relay
from benchmarks.relay.building import ROOT, build
from benchmarks.relay.running import free_port, generate, serving
from benchmarks.relay.setups import Idle, Offline, Pairs, Room
from benchmarks.relay.world import World

what, seconds = (sys.argv[1:] + ["window=256"])[0], (sys.argv[2:] + ["5"])[0]
name, _, value = what.partition("=")
setup = {
    "pairs": Pairs(),
    "offline": Offline(),
    "idle": Idle(int(value or 1000)),
    "storm": Idle(int(value or 1000)),
}.get(name, Room())
built = build(ROOT / "build" / "bench")
folder = built.fresh("rough")
(folder / "data").mkdir(mode=0o700)
with World(folder / "data") as world:
    plan = saltline_relay.Scene(world, built).plan(setup).write(folder / "plan")
options = {
    "window": ("--mode", "window", "--flow", "group", "--window", value),
    "rate": ("--mode", "rate", "--rate", value),
    "pairs": ("--mode", "window", "--flow", "both", "--window", value or 32),
    "offline": ("--mode", "window", "--flow", "ack", "--window", value or 32, "--coalesce", 1),
    "idle": ("--mode", "idle"),
    "storm": ("--mode", "storm"),
}[name]
port = free_port()
with serving(saltline_relay.command(folder, built, port), port, folder) as server:
    print(
        json.dumps(
            generate(
                built.program("lg"), [plan], server, *options, "--measure", seconds, "--drain", 10
            ),
            indent=1,
        )
    )
