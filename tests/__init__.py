"""
The tests of sipdmq: C{python -m twisted.trial tests}.
"""
