"""The house: the import law, packages that reach the wheel, sizes, and settings in the manual."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from saltline.server.config import Config
from saltline.server.settings import Settings

ROOT: Final = Path(__file__).parent.parent
PACKAGE_FOLDERS: Final = ("client", "crypto", "protocol", "server")
FILE_MAX_LINES: Final = 400
FUNCTION_MAX_LINES: Final = 80

# What the relay may import from crypto, and what it must not even reach.
RELAY_MAY_IMPORT: Final = {"signatures", "bundles", "keylog"}
# What a pure module may import besides its own package; nothing here knows time, disk or network.
PURE: Final = {
    "crypto": {
        "bisect", "collections", "contextlib", "contextvars", "dataclasses", "enum", "functools",
        "hashlib", "hmac", "itertools", "re", "struct", "typing", "unicodedata",
    },
    "protocol": {
        "bisect", "collections", "dataclasses", "enum", "functools", "ipaddress", "itertools",
        "msgspec", "re", "struct", "typing", "unicodedata",
    },
}  # fmt: skip
# Builtins that do I/O or run text.
IMPURE_BUILTINS: Final = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}
# What reading and writing a certificate takes; ciphers and signatures of its own it does not.
CERTIFICATE_PARTS: Final = (
    "cryptography.x509",
    "cryptography.exceptions",
    "cryptography.hazmat.primitives.hashes",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.types",
)


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def contract(name: str) -> dict[str, Any]:
    """One of import-linter's contracts, by the beginning of its name."""
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    (found,) = [each for each in contracts if each["name"].startswith(name)]
    assert isinstance(found, dict)
    return found


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def module_name(path: Path) -> str:
    """The import name of a file in one of the package folders."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("saltline", *(part for part in parts if part != "__init__")))


def imports_of(path: Path) -> set[str]:
    """Everything a file imports, as far as names tell: `from a import b` is a.b."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def below(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def in_fresh_python(code: str) -> str:
    """Run a few lines alone, so that what they load is what they need."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- The import law ---------------------------------------------------------------------------


def test_every_import_contract_holds() -> None:
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache", "--no-logo"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_import_linter_sees_every_module() -> None:
    graph = "import grimp; print(*grimp.build_graph('saltline', cache_dir=None).modules)"

    seen = set(in_fresh_python(graph).split())

    assert seen == {"saltline", *map(module_name, python_files(*PACKAGE_FOLDERS))}


def test_every_module_of_crypto_is_either_the_relays_or_forbidden_to_it() -> None:
    forbidden = {
        name
        for each in ("The relay cannot decrypt", "The relay takes from crypto")
        for name in contract(each)["forbidden_modules"]
    }

    modules = {module_name(path) for path in python_files("crypto")} - {"saltline.crypto"}

    assert forbidden == modules - {f"saltline.crypto.{name}" for name in RELAY_MAY_IMPORT}


def test_a_relay_that_runs_has_loaded_nothing_that_decrypts() -> None:
    modules = [module_name(path) for path in python_files("server")]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"

    loaded = set(in_fresh_python(code).split())

    assert "saltline.crypto.signatures" in loaded
    assert not loaded.intersection(contract("The relay cannot decrypt")["forbidden_modules"])
    assert not [name for name in loaded if below(name, "saltline.client", "prompt_toolkit")]


def test_headless_commands_start_without_a_screen() -> None:
    headless = [module_name(path) for path in python_files("client") if "tui" not in path.parts]
    code = f"import sys, {', '.join(headless)}; print(*sys.modules)"

    loaded = set(in_fresh_python(code).split())

    assert not [name for name in loaded if below(name, "saltline.client.tui", "prompt_toolkit")]


@pytest.mark.parametrize("package", PURE)
def test_a_pure_package_imports_nothing_that_does_io(package: str) -> None:
    allowed = (*PURE[package], f"saltline.{package}")
    primitives = (*allowed, "nacl", "cryptography")

    impure = {
        f"{path.name}: {name}"
        for path in python_files(package)
        for name in imports_of(path)
        if not below(name, *(primitives if path.name == "primitives.py" else allowed))
    }

    assert impure == set()


@pytest.mark.parametrize("package", PURE)
def test_a_pure_package_calls_nothing_that_does_io(package: str) -> None:
    calls = {
        f"{path.name}:{node.lineno} {node.id}"
        for path in python_files(package)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS
    }

    assert calls == set()


def test_outside_crypto_cryptography_only_serves_certificates() -> None:
    used = {
        name
        for path in python_files("client", "server")
        for name in imports_of(path)
        if below(name, "cryptography") and not below(name, *CERTIFICATE_PARTS)
    }

    assert used == set()


# --- What is installed ------------------------------------------------------------------------


def packages_in_the_tree() -> set[str]:
    """Every folder with a module in it."""
    folders = {path.parent for path in python_files(*PACKAGE_FOLDERS)}
    return {"saltline", *(module_name(folder / "__init__.py") for folder in folders)}


def test_every_package_is_listed_and_so_reaches_the_wheel() -> None:
    assert sorted(packages_in_the_tree()) == sorted(pyproject()["tool"]["setuptools"]["packages"])
    folders = {path.parent for path in python_files(*PACKAGE_FOLDERS)}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_every_folder_of_a_package_is_mapped_and_linked() -> None:
    mapped = pyproject()["tool"]["setuptools"]["package-dir"]

    assert mapped == {
        "saltline": "src/saltline",
        **{f"saltline.{folder}": folder for folder in PACKAGE_FOLDERS},
    }
    for folder in PACKAGE_FOLDERS:
        assert (ROOT / "src/saltline" / folder).readlink() == Path("../..") / folder


def test_everything_in_a_package_that_is_not_python_is_package_data() -> None:
    data = pyproject()["tool"]["setuptools"]["package-data"]
    listed = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / "src" / package.replace(".", "/")).glob(pattern)
    }

    there = {
        ROOT / "src/saltline" / path.relative_to(ROOT)
        for folder in PACKAGE_FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }

    assert there <= listed
    assert ROOT / "src/saltline/py.typed" in listed


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files(*PACKAGE_FOLDERS)
        if ast.get_docstring(tree_of(path)) is None
    ]

    assert silent == []


# --- Sizes ------------------------------------------------------------------------------------


def all_python_files() -> list[Path]:
    folders = (*PACKAGE_FOLDERS, "src/saltline", "tests", "benchmarks", "demo", "deploy")
    return sorted({path.resolve() for path in python_files(*folders)})


def test_no_file_is_too_long_to_know() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in all_python_files()
    }

    assert {name: count for name, count in lines.items() if count > FILE_MAX_LINES} == {}


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.name}", node.end_lineno - node.lineno + 1


def test_no_function_is_too_long_to_see() -> None:
    lengths = dict(each for path in all_python_files() for each in functions_of(path))

    assert {name: count for name, count in lengths.items() if count > FUNCTION_MAX_LINES} == {}


# --- The manual -------------------------------------------------------------------------------


def settings_of_the_relay() -> list[str]:
    own = {field.name for field in fields(Config)} - {"settings", "deadlines"}
    return sorted(own | {field.name for field in fields(Settings)})


def test_every_setting_is_in_the_manual() -> None:
    manual = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md"))
    missing = [
        name
        for name in settings_of_the_relay()
        if not re.search(rf"`{name}`|^ *#? *{name} = ", manual, re.MULTILINE)
    ]
    assert missing == []
