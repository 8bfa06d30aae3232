"""
What all services share: which request goes to whom, which domains are ours, and how a request is refused.
"""
