"""
Against real programs: the node runs as a process, as a user starts it, and sipp, sipsak and baresip talk to it.

A program that is not installed skips its tests, except where C{CI=true} or C{SIPDMQ_REQUIRE_INTEROP=1} says that
everything must be there: then they fail. With C{SIPDMQ_INTEROP_AGAINST=kamailio} the same tests run against Kamailio
instead of the node, which shows that they ask for nothing but what a SIP registrar does.
"""
