"""Nodes to a `Filesystem`: what has structure becomes directories and files. See docs/externfs.md.

A plugin says what its directories hold and what its files read and write (`umlfs.externfs.node`), and how a word of
the command line names it (`umlfs.externfs.kind`). It imports its libraries only when it is used.
"""
