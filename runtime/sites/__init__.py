"""Web sites whose scripts run in guests: a captive guest for each, which sees requests as directories.

`config` reads SITES.toml, `site` holds a site's guest, `exchange` is one request and its answer, `tree` shows them as
files, `spawner` and `cgi` have scripts answer, `application` is what a web server calls, `adapters` what others call.
"""
