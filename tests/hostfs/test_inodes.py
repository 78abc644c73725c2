"""The inode table: names, moves, and what is let go with what."""

from __future__ import annotations

import stat

from hostfs.inodes import MAX_LINKS, Inode, InodeTable
from umlfs.filesystem import ROOT

DIRECTORY, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK


def make() -> InodeTable:
    return InodeTable((1, 2), lambda _: None)


def names_of(table: InodeTable, inode: Inode) -> list[tuple[int, bytes]]:
    return [(parent.node, name) for parent, name in table.names(inode)]


def test_an_inode_is_found_by_its_key() -> None:
    table = make()
    inode = table.find((1, 10), FILE, 1, table.root, b"name")
    assert table.find((1, 10), FILE, 1, table.root, b"name") is inode
    assert table.nodes[inode.node] is inode
    assert inode.node != ROOT


def test_numbers_are_never_used_again() -> None:
    table = make()
    first = table.find((1, 10), FILE, 1, table.root, b"name")
    table.release(first)
    assert first.node not in table.nodes
    second = table.find((1, 10), FILE, 1, table.root, b"name")
    table.clear()
    third = table.find((1, 10), FILE, 1, table.root, b"name")
    assert first.node < second.node < third.node


def test_parents_stay_for_their_children() -> None:
    table = make()
    one = table.find((1, 10), DIRECTORY, 2, table.root, b"one")
    two = table.find((1, 11), DIRECTORY, 2, one, b"two")
    file = table.find((1, 12), FILE, 1, two, b"file")
    file.lookups = 1
    table.release(one)
    table.release(two)
    assert one.node in table.nodes
    assert two.node in table.nodes
    file.lookups = 0
    table.release(file)
    assert list(table.nodes) == [ROOT]
    assert table.root.children == 0


def test_release_closes_whatever_goes() -> None:
    closed: list[Inode] = []
    table = InodeTable((1, 2), closed.append)
    one = table.find((1, 10), DIRECTORY, 2, table.root, b"one")
    file = table.find((1, 12), FILE, 1, one, b"file")
    one.fd = file.fd = 100
    table.release(file)
    assert closed == [file, one]


def test_hard_links_are_remembered_up_to_a_bound() -> None:
    table = make()
    inode = table.find((1, 10), FILE, 2, table.root, b"0")
    for number in range(1, 20):
        assert table.find((1, 10), FILE, 20, table.root, b"%d" % number) is inode
    assert names_of(table, inode)[0] == (ROOT, b"19")
    assert len(names_of(table, inode)) == MAX_LINKS + 1
    assert table.root.children == MAX_LINKS + 1
    table.unname(inode, table.root, b"19")
    table.unname(inode, table.root, b"17")
    assert names_of(table, inode)[0] == (ROOT, b"18")
    assert table.find((1, 10), FILE, 20, table.root, b"15") is inode
    assert len(names_of(table, inode)) == MAX_LINKS - 1
    assert table.root.children == MAX_LINKS - 1


def test_a_directory_has_one_name() -> None:
    table = make()
    one = table.find((1, 10), DIRECTORY, 2, table.root, b"one")
    one.lookups = 1
    two = table.find((1, 11), DIRECTORY, 2, table.root, b"two")
    assert table.find((1, 11), DIRECTORY, 2, one, b"moved") is two
    assert names_of(table, two) == [(one.node, b"moved")]
    assert (table.root.children, one.children) == (1, 1)


def test_renames_move_names() -> None:
    table = make()
    one = table.find((1, 10), DIRECTORY, 2, table.root, b"one")
    file = table.find((1, 12), FILE, 1, table.root, b"file")
    table.move(file, table.root, b"file", one, b"moved")
    assert names_of(table, file) == [(one.node, b"moved")]
    table.move(file, one, b"moved", one, b"moved")
    assert names_of(table, file) == [(one.node, b"moved")]
    assert (table.root.children, one.children) == (1, 1)


def test_a_number_used_again_for_another_type() -> None:
    table = make()
    file = table.find((1, 10), FILE, 1, table.root, b"name")
    link = table.find((1, 10), LINK, 1, table.root, b"name")
    assert link is not file
    assert table.keys[1, 10] is link
    table.release(file)
    assert table.keys[1, 10] is link


def test_a_number_used_again_under_another_name() -> None:
    table = make()
    old = table.find((1, 10), FILE, 1, table.root, b"old")
    new = table.find((1, 10), FILE, 1, table.root, b"new")
    assert new is not old
    new.fd = 100  # held open: the host cannot have used the number again
    assert table.find((1, 10), FILE, 1, table.root, b"renamed") is new


def test_a_known_name_of_several_is_left() -> None:
    table = make()
    inode = table.find((1, 10), FILE, 1, table.root, b"one")
    table.find((1, 10), FILE, 2, table.root, b"two")
    assert table.find((1, 10), FILE, 1, table.root, b"one") is inode  # the other was removed on the host


def test_a_directory_mounted_below_itself() -> None:
    table = make()
    one = table.find((1, 10), DIRECTORY, 2, table.root, b"one")
    two = table.find((1, 11), DIRECTORY, 2, one, b"two")
    again = table.find((1, 10), DIRECTORY, 2, two, b"one again")
    assert again is not one
    assert again.parent is two
    assert table.find((1, 10), DIRECTORY, 2, two, b"one again") is again
    assert table.find((1, 10), DIRECTORY, 2, table.root, b"one") is one
    root_again = table.find((1, 2), DIRECTORY, 2, two, b"root again")
    assert root_again is not table.root


def test_a_rename_that_would_make_a_loop_loses_the_name() -> None:
    """The host has moved things meanwhile, or it would have refused."""
    table = make()
    one = table.find((1, 10), DIRECTORY, 2, table.root, b"one")
    two = table.find((1, 11), DIRECTORY, 2, one, b"two")
    two.lookups = one.lookups = 1
    table.move(one, table.root, b"one", two, b"one")
    assert one.parent is None
    assert table.root.children == 0
    assert table.find((1, 11), DIRECTORY, 2, table.root, b"two") is two
    assert table.find((1, 10), DIRECTORY, 2, two, b"one").parent is two
