"""Images in formats that qemu knows and we do not, as sources: qemu's own server reads and writes them."""
