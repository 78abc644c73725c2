"""What is inside of sources: images, trees, directories. Every tool works on a `Filesystem` alone."""
