"""
Calls as dialogs that all nodes know of: what is under way, whose call it is, how many at once. Kamailio's module
C{dialog}.
"""
