"""`fs:` whatever fsspec reaches: object stores, web servers, SFTP servers, archives. See docs/externfs.md."""
