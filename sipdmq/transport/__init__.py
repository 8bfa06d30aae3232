"""
The transports (RFC 3261 §18): bytes to messages and back, connections, and where a URI leads (RFC 3263).
"""
