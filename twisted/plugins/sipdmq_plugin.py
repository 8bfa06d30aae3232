"""
Tells twistd that there is a service called C{sipdmq}.
"""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker("sipdmq", "sipdmq.tap", "A SIP registrar, proxy and presence server.", "sipdmq")
