"""Archives as sources: a tar, zip, cpio or 7z file as a filesystem that is read, with an index that is kept."""
