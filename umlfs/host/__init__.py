"""What every provider on a host needs: system calls, watches, locks, new files, sockets."""
