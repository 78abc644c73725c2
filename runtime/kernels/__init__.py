"""What a kernel is booted from: its file, its modules, the initramfs that we make, and the words that make it quick."""
