"""The documents are tested: what the code has stands in them, and what they name exists."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

import click
import msgspec
import pytest

from saltline.client.cli import cli as client_cli
from saltline.client.tui.commands import COMMANDS
from saltline.protocol import content, limits, messages, to_client, to_relay
from saltline.protocol.errors import FAULT, ErrorCode
from saltline.protocol.wire import Wire
from saltline.server.cli import cli as relay_cli
from saltline.server.config import Config, Deadlines, Flags, load_config
from saltline.server.settings import Settings
from tests.torture.catalogue import TORTURES

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
PACKAGE_FOLDERS: Final = ("client", "crypto", "protocol", "server")
PAGES: Final = sorted((*ROOT.glob("*.md"), *DOCS.rglob("*.md")))
# Folders that every Unix has; a path elsewhere exists on its writer's computer only.
COMMON_FOLDERS: Final = {"bin", "etc", "opt", "usr", "var"}
DECISION_MAX_LINES: Final = 40


def read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next one that is not deeper."""
    marks = heading.split(" ", 1)[0]
    text = read(page)
    assert f"\n{heading}\n" in text, f"{page} has no section {heading}"
    after = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(marks)}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of all tables."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def in_backquotes(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


# --- The protocol -----------------------------------------------------------------------------


def structs_of(module: object) -> list[type[msgspec.Struct]]:
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == getattr(module, "__name__", "")
        and not name.startswith("_")
    ]


@pytest.mark.parametrize(
    ("module", "heading"),
    [(to_relay, "### Messages to the relay"), (to_client, "### Messages to the client")],
)
def test_every_message_stands_in_its_table_with_its_tag_and_its_fields_in_order(
    module: object, heading: str
) -> None:
    text = section("protocol.md", heading)
    table = {row[0]: row[1] for row in rows(text)}

    for struct in structs_of(module):
        names = [field.name for field in msgspec.structs.fields(struct)]
        if not issubclass(struct, Wire):
            inside = text.split("Inside them:", 1)[1]
            shown = re.search(rf"`{struct.__name__}`(?: is)?\s\[([^\]]*)\]", inside)
            assert shown is not None, f"{struct.__name__} is not described"
            described = shown[1]
        else:
            described = table[f"`{struct.__name__}` (`{struct.__struct_config__.tag}`)"]
        places = [re.search(rf"\b{name}\b", described) for name in names]
        assert None not in places, f"{struct.__name__}: {names} in {described!r}"
        assert [p.start() for p in places if p] == sorted(p.start() for p in places if p)


def test_no_message_stands_in_a_table_that_does_not_exist() -> None:
    known = {
        f"`{struct.__name__}` (`{struct.__struct_config__.tag}`)"
        for module in (to_relay, to_client)
        for struct in structs_of(module)
    }

    for heading in ("### Messages to the relay", "### Messages to the client"):
        named = {row[0] for row in rows(section("protocol.md", heading)) if " (`" in row[0]}
        assert named <= known


def test_what_two_clients_say_is_in_the_protocol() -> None:
    ratchet = section("protocol.md", "## 4. Ratchet, envelopes and content")
    table = [row[1] for row in rows(ratchet) if row[0].isdigit()]

    assert table == [field.name for field in msgspec.structs.fields(content.Content)]
    for kind in content.Kind:
        assert f"{kind.value} {kind.name}" in ratchet
    for room_kind in content.RoomKind:
        assert f"{room_kind.value} {room_kind.name}" in section("protocol.md", "### Rooms")


def test_reserved_tags_are_in_the_protocol() -> None:
    assert messages.RESERVED_TAGS <= in_backquotes(
        section("protocol.md", "### Messages to the client")
    )


def test_every_error_code_has_its_fault_in_the_protocol() -> None:
    table = {row[0]: row[1] for row in rows(section("protocol.md", "### Errors"))}

    assert {f"`{code.value}`": FAULT[code].value for code in ErrorCode} == {
        code: fault for code, fault in table.items() if code.startswith("`")
    }


def test_errors_of_requests_are_error_codes() -> None:
    codes = {code.value for code in ErrorCode}

    for row in rows(section("protocol.md", "### Messages to the relay")):
        if " (`" in row[0]:
            assert in_backquotes(row[3] if len(row) > 3 else "") <= codes


def test_every_limit_has_its_value_and_a_reason_in_the_protocol() -> None:
    table = {row[0].strip("`"): row[1:] for row in rows(section("protocol.md", "### Limits"))}
    public = {
        name: value
        for name, value in vars(limits).items()
        if name.isupper() and isinstance(value, int | float)
    }

    assert {name for name in table if name.isupper()} == set(public)
    for name, value in public.items():
        shown, reason = table[name]
        assert float(shown.replace(",", "")) == value, name
        assert reason, name


def test_the_sections_that_the_code_refers_to_exist() -> None:
    numbered = {f"§{number}" for number in re.findall(r"^## (\d)\. ", read("protocol.md"), re.M)}
    assert numbered == {f"§{number}" for number in range(1, 10)}

    for folder in PACKAGE_FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for reference in re.findall(r"docs/([a-z-]+\.md)", path.read_text("utf-8")):
                assert (DOCS / reference).is_file(), f"{path}: docs/{reference}"


def test_what_is_said_to_hold_a_promise_exists() -> None:
    text = read("testing.md")
    for place in re.findall(r"`(tests/[\w/]+(?:\.py|/))", text):
        assert (ROOT / place).exists(), place
    table = text[text.index("## From a promise") : text.index("## What must never be lost")]
    trials = {name for name in re.findall(r"`(\w+)`", table)}
    assert trials == {torture.name for torture in TORTURES}


def test_the_labels_in_use_are_listed() -> None:
    used = {
        node.args[0].value
        for path in (ROOT / "crypto").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "label"
        and isinstance(node.args[0], ast.Constant)
    }

    listed = read("protocol.md").split("The labels in use:", 1)[1].split("Each has one use.", 1)[0]
    assert in_backquotes(listed.replace("\n", " ")) == used


# --- The house --------------------------------------------------------------------------------


def test_the_module_table_is_the_tree() -> None:
    there = {
        str(path.relative_to(ROOT))
        for folder in PACKAGE_FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    table = rows(section("architecture.md", "## Modules"))
    listed = [row[0].strip("`") for row in table if row[0].endswith(".py`")]

    assert sorted(listed) == sorted(there)
    assert all(row[1] for row in table)


def test_every_lock_has_a_tier() -> None:
    tiers = read("architecture.md")
    made = re.compile(r"self\.(_\w+)(?:: [^=]+)? = threading\.(?:Lock|RLock|Condition)\(")

    for folder in ("client", "server"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in made.findall(path.read_text("utf-8")):
                place = str(path.relative_to(ROOT))
                assert re.search(rf"\.{name}` \(`{re.escape(place)}`\)", tiers), f"{place}: {name}"


# --- The programs -----------------------------------------------------------------------------


def commands_of(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield name, command
        if isinstance(command, click.Group):
            yield from commands_of(command)


def options_of(command: click.Command) -> set[str]:
    """As typed: --long and -s, those of help and version too."""
    context = click.Context(command)
    return {
        option
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize(("program", "page"), [(client_cli, "using.md"), (relay_cli, "relay.md")])
def test_every_command_and_option_is_in_the_manual(program: click.Group, page: str) -> None:
    quoted = " ".join(in_backquotes(read(page)))
    words = set(re.findall(r"[\w-]+", quoted))

    for name, command in commands_of(program):
        assert re.search(rf"^\| `{name}\b", read(page), re.MULTILINE), f"{page}: {name}"
        assert options_of(command) <= words, f"{page}: {name}"
    assert options_of(program) <= words


@pytest.mark.parametrize(("program", "page"), [(client_cli, "using.md"), (relay_cli, "relay.md")])
def test_the_manual_has_no_option_that_does_not_exist(program: click.Group, page: str) -> None:
    every = options_of(client_cli) | options_of(relay_cli)
    for each in (client_cli, relay_cli):
        every |= {option for _, command in commands_of(each) for option in options_of(command)}

    quoted = " ".join(in_backquotes(read(page)))

    assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", quoted)) - {"--reuse-key"} <= every


def test_every_slash_command_is_in_the_manual() -> None:
    table = {row[0].strip("`") for row in rows(section("using.md", "### What to type"))}

    assert {command.usage for command in COMMANDS.values()} <= table
    assert {usage for usage in table if usage.startswith("/")} <= {
        command.usage for command in COMMANDS.values()
    }


def test_every_setting_of_the_relay_is_in_its_manual_with_its_default() -> None:
    text = section("relay.md", "## Configuration")
    table = {name: row[1] for row in rows(text) for name in in_backquotes(row[0])}
    own = {field.name for field in fields(Config)} - {"settings", "deadlines"}
    numbers = {
        field.name: getattr(default, field.name)
        for default in (Settings(), Deadlines())
        for field in fields(default)
        if field.name != "registration"
    }

    assert set(table) == own | set(numbers) | {"registration"}
    for name, value in numbers.items():
        assert float(table[name].replace(",", "")) == value, name


def test_every_configuration_shown_is_one_that_the_relay_takes(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", read("relay.md"), re.DOTALL)
    file = tmp_path / "relay.toml"
    file.write_text(example)

    config = load_config(file, Flags())

    assert config.settings.registration.value == "invite"
    assert config.certificate == tmp_path / "fullchain.pem"


# --- All pages --------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_no_machine_of_its_writer(page: Path) -> None:
    absolute = re.findall(r"(?<![\w./:])/(\w+)/", page.read_text("utf-8"))

    assert set(absolute) <= COMMON_FOLDERS


def test_files_and_tests_that_the_pages_name_exist() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        for name in in_backquotes(text):
            if re.fullmatch(r"(?:tests|client|server|crypto|protocol|docs)/[\w/.-]+", name):
                assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_tests_that_show_a_claim_are_there() -> None:
    text = read("threat-model.md")
    claims = re.findall(r"`(tests/[\w/]+\.py)`(?:\s*\(([^)]*)\))?", text)
    assert claims

    for file, names in claims:
        source = (ROOT / file).read_text("utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"def test_{name}(" in source, f"{file}: {name}"


def test_decisions_are_numbered_short_and_listed() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    index = (DOCS / "decisions" / "README.md").read_text("utf-8")

    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text("utf-8")
        assert text.startswith(f"# {int(record.name[:4])}. ")
        assert len(text.splitlines()) < DECISION_MAX_LINES
        assert all(f"**{part}" in text for part in ("Context", "Decided", "Consequences"))
        assert f"]({record.name})" in index
