"""
The transaction layer (RFC 3261 §17): runs the tables of L{sipdmq.sip.fsm} with a clock.
"""
