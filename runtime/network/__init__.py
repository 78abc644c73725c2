"""Networks of machines: what a card of a guest is attached to, and the programs that stand behind it.

`contract` says what every kind of network is; `words` turns what a person writes into values; the others are the kinds.
"""
