"""
Groups of gateways: which of them a call is sent to, and which of them are there at all.

What L{groups<sipdmq.gateways.groups>} decides, L{service<sipdmq.gateways.service>} asks the network for.
"""
