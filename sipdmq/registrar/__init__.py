"""
The registrar (RFC 3261 §10): L{bindings<sipdmq.registrar.bindings>} decides, L{store<sipdmq.registrar.store>} keeps,
L{service<sipdmq.registrar.service>} answers.
"""
