"""
The stateful proxy (RFC 3261 §16): L{forward<sipdmq.proxy.forward>} and L{best<sipdmq.proxy.best>} decide,
L{context<sipdmq.proxy.context>} and L{service<sipdmq.proxy.service>} act.
"""
