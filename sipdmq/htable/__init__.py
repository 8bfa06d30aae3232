"""
Tables that policies share: L{tables<sipdmq.htable.tables>} has the cells of one, L{patterns<sipdmq.htable.patterns>}
finds those that match, L{service<sipdmq.htable.service>} is what policies, operators and other nodes use.
"""
