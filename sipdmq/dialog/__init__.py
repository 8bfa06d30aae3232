"""
Calls as dialogs that all nodes know of: what is under way, who counts as whose call, how many at once. Kamailio's module
C{dialog}.
"""
