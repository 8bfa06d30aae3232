"""
The registrar of C{twisted.protocols.sip}, for comparison only: sipdmq uses nothing of that module.

    python bench/twisted_sip.py 127.0.0.1 5060 [LOGFILE]
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorUDP
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.sip import InMemoryRegistry, RegisterProxy


def main(host: str, port: int, log_path: str = "") -> None:
    """
    Serve the domain that is called like the address, until the process is ended.

    @param log_path: where the log goes, as C{twistd --logfile} writes it; without one it is thrown away.
    """
    # Without a first observer the log is gathered in memory: that would be counted, too.
    observers = []
    if log_path:
        observers.append(textFileLogObserver(open(log_path, "a", encoding="utf-8")))  # noqa: SIM115 - open to the end
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)
    proxy = RegisterProxy(host=host, port=port)
    proxy.registry = proxy.locator = InMemoryRegistry(host)  # type: ignore[assignment]  # None in the class
    IReactorUDP(reactor).listenUDP(port, proxy, interface=host, maxPacketSize=65535)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
