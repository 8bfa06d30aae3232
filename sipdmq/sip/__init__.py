"""
SIP without input and output: grammar, URIs, header fields, messages, framing, and the transaction tables.

Nothing here knows a socket, a clock or Twisted; everything can be tried in a Python shell.
"""
