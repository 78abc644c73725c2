"""Images of guests' filesystems: built, converted from any format to any other, resized, compacted."""
