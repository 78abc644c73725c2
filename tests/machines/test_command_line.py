"""Classic command lines, word by word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.kernels.features import features
from runtime.kernels.kernel import find_kernel
from runtime.machines.command_line import describe, parse
from runtime.machines.description import Description, save
from runtime.machines.options import machine_options
from umlfs.errors import UsageError


def described(line: str) -> Description:
    description, remarks = parse(line.split())
    assert remarks == []
    return description


def test_a_classic_line() -> None:
    line = "mem=512M umid=debian ubd0=root.cow,root.img root=/dev/ubda con=null con1=fd:0,fd:1"
    assert described(line) == Description(
        umid="debian",
        memory=512 << 20,
        root_device="ubda",
        ubds=("ubd0=root.cow,root.img",),
        consoles=("con=null", "con1=fd:0,fd:1"),
    )


def test_every_word_of_the_kernel_s() -> None:
    line = (
        "uml_dir=/d rootfstype=ext4 rootflags=noatime init=/bin/sh mconsole=notify:/s xterm=x,-T,-e tty_log_dir=/l "
        "ro noreboot hostfs=/h iomem=a,b quiet debug eth0=tuntap,,,10.0.0.1 vec0:transport=tap ssl3=null ubd=sync "
        "ubd1r=b,,S root=/dev/ubdb2"
    )
    assert described(line) == Description(
        uml_dir="/d",
        root_device="ubdb2",
        root_type="ext4",
        root_flags="noatime",
        init="/bin/sh",
        notify="/s",
        xterm="x,-T,-e",
        tty_log_dir="/l",
        read_only=True,
        reboot=False,
        consoles=("ssl3=null",),
        ubds=("ubd1r=b,,S",),
        arguments=(
            *("hostfs=/h", "iomem=a,b", "quiet", "debug", "eth0=tuntap,,,10.0.0.1"),
            *("vec0:transport=tap", "ubd=sync"),
        ),
    )


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("/dev/ubda", "ubda"),
        ("/dev/ubdb3", "ubdb3"),
        ("98:0", "ubda"),
        ("98:17", "ubdb1"),
        ("6200", "ubda"),
        ("0x6221", "ubdc1"),
    ],
)
def test_names_of_the_root(word: str, device: str) -> None:
    assert described(f"root={word}").root_device == device


def test_words_for_the_init() -> None:
    found = described("single 3 color=red")
    assert found.init_arguments == ("single", "3")
    assert found.arguments == ("single", "3", "color=red")


def test_the_first_disk_is_the_root() -> None:
    assert described("ubd0=image").root_device == "ubda"
    assert described("ubd1=image").boots_host
    assert described("").boots_host


def test_old_forms(tmp_path: Path) -> None:
    for words, field, value in (
        ([f"ubd0={tmp_path}"], "root", f"hostfs:{tmp_path}"),
        (["ubd0=x", "root=/dev/ubd0"], "root_device", "ubda"),
        (["root=/dev/ubd/1"], "root_device", "ubdb"),
        (["rootfstype=hostfs", "rootflags=/srv"], "root", "hostfs:/srv"),
        (["rootfstype=hostfs"], "root", "hostfs:/"),
    ):
        description, remarks = parse(words)
        assert getattr(description, field) == value
        assert len(remarks) == 1
        assert "taken as" in remarks[0]


@pytest.mark.parametrize(("word", "near"), [("memm=3", "mem="), ("qiuet", "quiet"), ("rootfs=x", "root=")])
def test_likely_mistakes_are_none_of_ours(word: str, near: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse([word])
    assert raised.value.what == f"{word}: not known; did you mean {near}?"
    description, remarks = parse([], None, [word])
    assert (description.arguments, remarks) == ((word,), [])


@pytest.mark.parametrize("word", ["clock=x", "mhash_entries=2", "eth1=tuntap", "vec3:transport=tap", "clocksource=x"])
def test_what_the_kernel_knows_is_no_mistake(word: str) -> None:
    description, remarks = parse([word])
    assert (description.arguments, remarks) == ((word,), [])


def test_an_initrd_finds_the_root() -> None:
    it = described("initrd=x ubd0=image root=LABEL=a rootfstype=ext4 init=/bin/sh single")
    words = ("single", "root=LABEL=a", "rootfstype=ext4", "init=/bin/sh")
    assert it == Description(initrd="x", ubds=("ubd0=image",), init_arguments=("single",), arguments=words)
    assert machine_options(it).native_ubd
    with pytest.raises(UsageError, match="mounts its root itself"):
        machine_options(parse(["initrd=x", "ubd0=/tmp"])[0])
    with pytest.raises(UsageError, match="--lock-modules: initrd=x is the whole guest"):
        machine_options(replace(parse(["initrd=x"])[0], lock_modules=True))


@pytest.mark.parametrize("word", ["systemd.unit=rescue.target", "printk.time=1", "color=red", "panic=1", "3"])
def test_words_of_others_are_passed_on_without_a_remark(word: str) -> None:
    assert word in described(word).arguments


@pytest.mark.parametrize(
    "line",
    [
        "udb0=image",
        "ubd0=image ubd99=x",
        "mem=nonsense",
        "umid=a/b",
        f"umid={'x' * 64}",
        "con1=bogus",
        "con0=none",
        "mconsole=bogus",
        "root=/dev/sda1",
        "rootfstype=hostfs rootflags=/x,append",
    ],
)
def test_what_cannot_be_meant(line: str) -> None:
    with pytest.raises(UsageError):
        parse(line.split())


def test_options_and_words_come_on_top_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    save(Description(umid="file", memory=64 << 20, mounts=("/a=/b",)), file)
    given = {"umid": None, "mounts": ("/c=/d",), "init": "/bin/sh", "reboot": None}
    found, _ = describe([str(file), "mem=128M"], given)
    assert found == Description(umid="file", memory=128 << 20, mounts=("/a=/b", "/c=/d"), init="/bin/sh")


def test_words_that_the_kernel_does_not_know() -> None:
    """It is asked: no list of ours says what it does not know."""
    kernel = find_kernel()
    unknown = ["dtb=x", "ncpus=2", "mode=skas0", "skas0"]
    description, remarks = parse(["mem=64M", *unknown])
    assert [line.partition(":")[0] for line in remarks] == [
        word for word in unknown if not features(kernel).knows(word.partition("=")[0])
    ]
    assert all(f"Linux {kernel.version}" in line and line.endswith("the word does nothing") for line in remarks)
    assert set(unknown) <= {*description.arguments}


def test_whose_the_callers_files_are(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:\nann:x:1001:1002::/:\n")
    it = Description(root=f"hostfs:{tmp_path}")
    assert machine_options(it).owner == (0, 0)
    assert machine_options(replace(it, user="ann")).owner == (1001, 1002)
    assert machine_options(replace(it, user="12345")).owner == (12345, 12345)
    with pytest.raises(UsageError, match="nobody-here"):
        machine_options(replace(it, user="nobody-here"))
    with pytest.raises(UsageError, match="no directory of this host"):
        machine_options(Description(root="disk.qcow2:1", user="ann"))
