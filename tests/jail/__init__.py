"""The jail of the kernel process."""
