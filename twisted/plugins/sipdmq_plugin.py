"""
Tells twistd that there is a service called C{sipdmq}.
"""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(
    "sipdmq", "sipdmq.tap", "a SIP registrar, proxy and presence server, clustered by DMQ", "sipdmq"
)
