"""
Presence: what phones publish of themselves (RFC 3903), what is made of it, and who is told of it (RFC 6665).
"""
