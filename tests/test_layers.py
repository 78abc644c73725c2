"""Who may import whom: nothing imports upwards, and a codec does no input or output."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ABOVE = {
    "umlfs": {"hostfs", "humfs", "runtime"},
    "hostfs": {"humfs", "runtime"},
    "humfs": {"hostfs", "runtime"},
    "runtime": set[str](),
}
"""For each package, those that it must not import."""

ROOMS = {
    "umlfs": "errors sizes compiled block filesystem composed buffers statistics lifetime host sources blocks views"
    " externfs cow ubd wire fuse virtio stream nbd mount entry starting",
    "runtime": "host archives containers process qemu volumes jail tty standby kernels guest network mconsole machine"
    " command appliance warm consoles machines inspect images doctor serve mounts cluster web captive sites cli",
}
"""The rooms of a package, each of which imports only those before it, for types too."""

INPUT_OUTPUT = {"trio", "socket", "asyncio", "selectors", "select", "subprocess"}
CODEC_SUFFIX = "_wire.py"
CODECS = "umlfs/wire"
"""The room of codecs."""
OTHER_CODECS: frozenset[str] = frozenset(
    {"umlfs/cow/header.py", "umlfs/cow/bitmap.py", "umlfs/blocks/partitions.py", "runtime/mconsole/wire.py"}
)
"""Sans-IO modules whose names do not end in `_wire.py`, by their path from the root."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that the module imports, also inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def offences(paths: list[Path], forbidden: set[str]) -> list[str]:
    """The imports in `paths` of the `forbidden` modules or of anything in them."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if any(f"{name}.".startswith(f"{module}.") for module in forbidden)
    ]


def codecs() -> list[Path]:
    named = {ROOT / name for name in OTHER_CODECS}
    named |= set((ROOT / CODECS).rglob("*.py"))
    return sorted(named | {path for package in ABOVE for path in modules(package) if path.name.endswith(CODEC_SUFFIX)})


@pytest.mark.parametrize("package", ABOVE)
def test_nothing_imports_upwards(package: str) -> None:
    assert modules(package)
    assert offences(modules(package), ABOVE[package]) == []


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_imports_only_those_before_it(package: str) -> None:
    order = ROOMS[package].split()
    found = {path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in modules(package)} - {"__init__"}
    assert found == set(order)
    for room, after in zip(order, (order[position + 1 :] for position in range(len(order))), strict=True):
        path = ROOT / package / room
        inside = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        assert offences(inside, {f"{package}.{other}" for other in after}) == []


def test_there_is_no_circle() -> None:
    """Imports for types and within functions count; a package may hand on what its own modules have."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for each in ABOVE for path in modules(each)}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    edges = {name: _imports_of(name, path, names) for name, path in names.items()}
    TopologicalSorter(edges).prepare()  # names the modules of a circle


def _imports_of(name: str, path: Path, names: dict[str, Path]) -> set[str]:
    found = {other if other in names else other.rpartition(".")[0] for _, other in imported(path)} & set(names)
    if path.name == "__init__.py":
        return {other for other in found if not other.startswith(f"{name}.")}
    return found - {name}


def test_the_command_line_is_outermost() -> None:
    inner = [path for package in ABOVE for path in modules(package) if ROOT / "runtime/cli" not in path.parents]
    assert offences(inner, {"runtime.cli", "click"}) == []


def test_codecs_do_no_input_or_output() -> None:
    assert offences(codecs(), INPUT_OUTPUT) == []


def test_the_rule_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "umlfs" / "serve" / "x_wire.py"
    module.parent.mkdir(parents=True)
    module.write_text("import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n")
    assert {name for _, name in imported(module)} == {"a.b", "c.d", "umlfs.serve.e", "umlfs.f.g", "i"}
    assert offences([module], {"a", "c.d", "umlfs.f", "um"}) == [
        "umlfs/serve/x_wire.py:1 imports a.b",
        "umlfs/serve/x_wire.py:2 imports c.d",
        "umlfs/serve/x_wire.py:4 imports umlfs.f.g",
    ]


# Programs of others ---------------------------------------------------------------------------

STARTERS = {"run", "Popen", "call", "check_call", "check_output", "run_process", "open_process", "system", "fork"}
GROUPED = {"process_group", "start_new_session"}
OF_OUR_GROUP = {
    "umlfs/host/programs.py": "gives each a group",
    "runtime/process/keeper.py": "a kernel makes a session of its own, and has its keeper",
    "runtime/process/background.py": "makes a session",
    "runtime/network/inside.py": "a child that does one thing, and ends with its parent",
    "runtime/standby/server.py": "makes a session",
    "runtime/host/suite.py": "the tests, which Ctrl-C is for",
    "runtime/warm/keeper.py": "makes a session for each",
    "runtime/inspect/editing.py": "an editor, which the terminal is for",
}
"""Modules that start processes without saying which group they are in, and why that is well."""


def started(path: Path) -> Iterator[str]:
    """Where the module starts a process in its own group."""
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        whose = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        if whose not in ("subprocess", "os", "trio") or node.func.attr not in STARTERS:
            continue
        if not GROUPED & {keyword.arg for keyword in node.keywords} and (whose, node.func.attr) != ("trio", "run"):
            yield f"{path.relative_to(ROOT)}:{node.lineno} starts a process in our own group"


def test_every_program_has_a_group_of_its_own() -> None:
    """What signals its group must not hit the caller's shell, and what ends a program must end its children."""
    paths = [path for package in ABOVE for path in modules(package)]
    found = [each for path in paths if str(path.relative_to(ROOT)) not in OF_OUR_GROUP for each in started(path)]
    assert found == []
