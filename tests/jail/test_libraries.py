"""The libraries of an executable, read off its tables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.jail.libraries import libraries
from tests import needs
from umlfs.errors import UmlError


def built(directory: Path, *options: str) -> Path:
    (directory / "main.c").write_text("int main(void) { return 0; }")
    command = [needs.program("gcc"), str(directory / "main.c"), "-o", str(directory / "main"), *options]
    subprocess.run(command, check=True)
    return directory / "main"


def test_of_a_program(tmp_path: Path) -> None:
    names = [path.name for path in libraries(built(tmp_path, "-Wl,--no-as-needed", "-lm"))]
    assert names[0].startswith("ld-linux")
    assert {"libc.so.6", "libm.so.6"} <= set(names)


def test_of_a_static_one(tmp_path: Path) -> None:
    assert libraries(built(tmp_path, "-static")) == []


def test_beside_the_program(tmp_path: Path) -> None:
    (tmp_path / "of.c").write_text("int of(void) { return 0; }")
    of = tmp_path / "libof.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(tmp_path / "of.c"), "-o", str(of)], check=True)
    program = built(tmp_path, "-Wl,--no-as-needed", str(of), "-Wl,-rpath,$ORIGIN")
    with pytest.raises(UmlError, match=r"its library .*nowhere"):
        libraries(built(tmp_path, "-Wl,--no-as-needed", str(_renamed(tmp_path, of))))
    program = built(tmp_path, "-Wl,--no-as-needed", "-L", str(tmp_path), "-lof", "-Wl,-rpath,$ORIGIN")
    assert of in libraries(program)


def _renamed(directory: Path, library: Path) -> Path:
    """A library that programs know by a name that is nowhere."""
    path = directory / "libother.so"
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libnowhere.so", str(directory / "of.c"), "-o", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF\x02\x01" + b"\xff" * 200], ids=["empty", "text", "torn"])
def test_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UmlError, match="cannot be run"):
        libraries(tmp_path / "x")


@pytest.mark.parametrize("option", ["-Wl,--dynamic-linker={}", "-Wl,-rpath,{}/.."])
def test_what_is_no_library_is_not_given(option: str, tmp_path: Path) -> None:
    """A kernel that names somebody's file as its linker or its library does not get it."""
    secret = tmp_path / "libsecret.so"
    source = tmp_path / "of.c"
    source.write_text("int of(void) { return 0; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libsecret.so", str(source), "-o", str(secret)], check=True)
    program = built(tmp_path, "-Wl,--no-as-needed", str(secret), option.format(secret), f"-Wl,-rpath,{tmp_path}")
    assert secret in libraries(program)
    secret.write_text("a key, and no library")
    with pytest.raises(UmlError, match="cannot be run"):
        libraries(program)


def test_damaged_programs(tmp_path: Path) -> None:
    """Whatever is in the tables, it is an error or an answer."""
    whole = built(tmp_path).read_bytes()
    for place in range(0, 1200, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            libraries(tmp_path / "damaged")
        except UmlError:
            continue
