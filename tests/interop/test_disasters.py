"""
A cluster of machines apart, three of sipdmq and a Kamailio, through all that befalls one. Short forms;
L{tests.interop.soak} runs the long ones. Each says its seed when it fails; SIPDMQ_SEED repeats what that decides.
"""

from __future__ import annotations

import os
import random
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.interop import disasters
from tests.interop.apart import ClusterApart
from tests.interop.forwarder import Faults
from tests.interop.namespaces import require_namespaces
from tests.interop.programs import require


class DisasterTests(SynchronousTestCase):
    """
    What phones were told is so afterwards, at all nodes alike.
    """

    def setUp(self) -> None:
        if os.environ.get("SIPDMQ_INTEROP_AGAINST") == "kamailio":
            raise SkipTest("Kamailio: it is in these tests anyway")
        require("kamailio", "kamcmd", "ps")
        require_namespaces()
        seed = int(os.environ.get("SIPDMQ_SEED") or random.SystemRandom().randrange(10**9))
        self.cluster = ClusterApart(seed)
        self.addCleanup(self.cluster.close)

    def test_a_network_that_loses_and_reorders(self) -> None:
        faults = Faults(loss=0.1, double=0.02, reorder=0.1, delay=0.0005, jitter=0.002)
        # A message of the Kamailio's that was not answered five times, one of 4,000, makes it take that node for lost
        # until its next ping is answered, and tell it nothing: up to its fr_timer and ping_interval, 13 s.
        disasters.loss(self.cluster, faults, seconds=4.0, limit=20.0)

    def test_nodes_that_are_cut_off(self) -> None:
        disasters.cut(self.cluster, "ck", seconds=12.0)

    def test_nodes_that_crash_in_turn(self) -> None:
        disasters.crashes(self.cluster, "abck", away=1.0, between=1.5)

    def test_a_node_that_is_stopped_for_a_while(self) -> None:
        disasters.pause(self.cluster, "b", seconds=10.0)
