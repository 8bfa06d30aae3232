"""
A cluster in one process, on one clock, over a network that loses, doubles, delays, reorders and cuts: everything that
happens follows from a seed. C{python -m tests.cluster SEED} runs one schedule and tells what happened.
"""
