"""
What C{twistd} knows of us: the options of C{twistd sipdmq}, and the service that they make.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from sipdmq import __version__, config
from sipdmq.errors import ConfigError
from sipdmq.node import makeNode

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """
    C{twistd sipdmq --config FILE}
    """

    synopsis = "[--config FILE]"
    longdesc = (
        "A SIP registrar, proxy and presence server. Without --config it listens on 127.0.0.1:5060, UDP and TCP, for "
        "the domain localhost, and asks nobody for a password; etc/node.ini in the source tree names every setting "
        "with its default. In the foreground: twistd -n --pidfile= sipdmq -c etc/node.ini. SIGTERM stops the node; "
        "SIGUSR2 writes its numbers into the log."
    )
    optParameters = [["config", "c", None, "The configuration file (INI)."]]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.ini")})

    def opt_version(self) -> None:
        """
        Display the version and exit.
        """
        sys.stdout.write(f"sipdmq {__version__}\n")
        sys.exit(0)


def makeService(options: Options) -> IService:
    """
    Build the node that the options ask for, its ports bound.

    @raise SystemExit: something in the configuration cannot be used: one line on standard error, exit status 1.
    """
    from twisted.internet import reactor

    path: str | None = options["config"]
    try:
        node_config = config.NodeConfig() if path is None else config.load(path)
        # All waits by a clock that nobody can set. Twisted's own is the wall clock: correcting it would close every
        # connection, or keep every binding.
        setattr(reactor, "seconds", time.monotonic)  # noqa: B010 - typed as a method
        service: Any = makeNode(node_config, reactor)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    return IService(service)
