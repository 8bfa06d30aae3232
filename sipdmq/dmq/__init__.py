"""
The cluster: nodes that tell one another over DMQ, Kamailio's distributed message queue (SIP requests of method KDMQ),
what their phones registered.
"""
