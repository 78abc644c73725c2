"""`sql:` a database as a tree of tables, rows and columns. See docs/externfs-sql.md."""
