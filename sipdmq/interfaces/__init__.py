"""
The seams: where two packages of one level meet, or where a test needs a stand-in.

L{messages<sipdmq.interfaces.messages>} between transports, transactions and their users;
L{location<sipdmq.interfaces.location>} between the registrar and whoever needs bindings;
L{credentials<sipdmq.interfaces.credentials>} between authentication and whoever knows the users;
L{inspection<sipdmq.interfaces.inspection>} for whoever watches the node.
"""
