"""A Filesystem of plain host files with true ownership kept beside them."""
