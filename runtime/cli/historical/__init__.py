"""Programs of uml-utilities under their old names, with their usage, exit statuses and messages."""
