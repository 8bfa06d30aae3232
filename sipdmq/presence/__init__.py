"""
Presence: what phones publish of themselves (RFC 3903), and what is made of it for those who watch.
"""
