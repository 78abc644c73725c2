"""`uml run --warm`: a guest that stands booted for the next command.

A process in the background (`keeper`) forks one that boots a guest, stops its kernel and waits for a client (`guest`).
The `uml` command looks for such a one before it imports anything (`runtime.standby.client`) and hands its command
over. The guest does this one command and is thrown away; meanwhile the keeper sees to the next. A guest stands for
exactly the options that it was booted with, and for exactly the user, rights and namespaces of who booted it.
"""
