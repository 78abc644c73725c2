"""A process beside a kept appliance that has everything imported: the next command is done in a copy of it.

Python, click and above all trio take several times as long to import as a kept appliance takes to answer. So the `uml`
command first looks for a standby (`client`, which imports next to nothing). If one is there and takes the command, it
forks (`server`), and the copy takes over the caller's standard descriptors, directory, environment, umask, limits and
priority (`worker`, `circumstances`), does the command, and the caller exits with its status. Signals are passed on.
Whatever is not just so is refused before anything is done, and the caller does its command by itself.
"""
