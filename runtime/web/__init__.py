"""The page in the browser: machines, consoles, images, and classes of machines for teachers.

`server` listens and serves what `application` puts together; `gate` lets in only who has a token (`access`). The page
itself is in `static`, as the browser gets it.
"""
