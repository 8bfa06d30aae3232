"""
Call records: what is written down of each call when it is over.

L{records<sipdmq.calls.records>} decides when a call is over and what its record says,
L{service<sipdmq.calls.service>} listens to the proxy, L{file<sipdmq.calls.file>} writes the lines.
"""
