"""
sipdmq: a SIP registrar, proxy and presence server whose nodes tell one another over DMQ.

C{sip} is SIP without input and output; C{transport} moves bytes, C{transaction} runs the state machines of RFC 3261
§17; C{core} decides which service a request goes to; C{registrar} is the first of the services. C{interfaces},
C{records}, C{errors} and C{config} are the leaves that all know. C{node} joins everything, C{tap} starts it.
ARCHITECTURE.md is the long form of this paragraph.
"""

__version__ = "0.1.0"
