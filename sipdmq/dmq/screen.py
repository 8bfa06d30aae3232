"""
What stands in front of the dispatcher of a node in a cluster: who is a node, and who only says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.dmq.lines import numeric_host
from sipdmq.dmq.membership import Membership
from sipdmq.dmq.own_headers import has_own_headers, remove_own_headers
from sipdmq.dmq.sender import KdmqSender
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.records import NodeName, Protocol, Source
from sipdmq.sip.fields import Via
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request
from sipdmq.sip.uri import DEFAULT_PORT

__all__ = ["Screen", "Senders"]

_COPIED = ("REGISTER", "PUBLISH")


class Senders:
    """
    Tells requests of nodes from those of phones, by where they came from and the Via on top.
    """

    def __init__(
        self,
        membership: Membership,
        links: KdmqSender,
        is_shown: Callable[[str, str], bool],
        require_tls: bool,
    ) -> None:
        """
        @param is_shown: whether the other end of a connection, given its token, has a certificate of that host.
        @param require_tls: C{[dmq] require_tls}: who came over anything else is no node.
        """
        self._membership = membership
        self._links = links
        self._is_shown = is_shown
        self._require_tls = require_tls

    def has_host(self, host: str) -> bool:
        """
        Whether another node is at this address.
        """
        return self._membership.nodelist.has_host(host)

    def _names_at(self, host: str) -> list[NodeName]:
        return [node.name for node in self._membership.nodelist.nodes()[1:] if node.name.host == host]

    def teller_at(self, host: str) -> str:
        """
        The node at an address, as in L{Binding.told_by<sipdmq.records.Binding>}.
        """
        names = self._names_at(host)
        return str(names[0]) if names else UNKNOWN

    def is_node_at(self, host: str, port: int | None) -> bool:
        """
        Whether another node is at this address and port.

        @param port: L{None}: the default one.
        """
        address = numeric_host(host) or host
        return self.has_host(address) and any(name.port == (port or DEFAULT_PORT) for name in self._names_at(address))

    def is_from_node(self, request: Request, source: Source) -> bool:
        """
        Whether a request came from a node that has put its Via on top: the address alone is not enough, as phones and
        proxies may live on the same machine. Of a REGISTER or PUBLISH, whether it is a copy (L{is_copy}). A KDMQ has
        been asked for more when it is seen (L{DMQService<sipdmq.dmq.service.DMQService>}), so its address does.
        """
        if not self.has_host(source.host):
            return False
        if request.method == "KDMQ":
            return True
        return self.is_copy(request, source) if request.method in _COPIED else self._has_put_via(request, source)

    def _has_put_via(self, request: Request, source: Source) -> bool:
        host = source.host
        if not self.has_host(host):
            return False
        via = request.top_via
        names = self._names_at(host)
        address = numeric_host(via.host)
        if address is None:
            names = [name for name in names if self._links.cert_name(name) == via.host]
        elif address != host:
            return False
        if source.protocol is Protocol.TLS:
            return any(self._is_shown(source.flow, self._links.cert_name(name)) for name in names)
        port = via.port or DEFAULT_PORT
        if self._require_tls or (source.protocol is Protocol.UDP and source.port != port):
            return False
        return any(name.port == port and name.protocol is not Protocol.TLS for name in names)

    def came_by_node(self, request: Request, source: Source) -> bool:
        """
        Whether a node has sent on what it had got, from a phone or another node.
        """
        return self._has_put_via(request, source) and len(request.vias) > 1

    def is_copy(self, request: Request, source: Source) -> bool:
        """
        Whether a node has sent on what it had got from a phone: its Via stands right above the phone's. What it had
        got from another node was a copy itself.
        """
        if not self.came_by_node(request, source):
            return False
        via = request.vias[1]
        return not self.is_node_at(via.host, via.port)

    def may_be_copy(self, request: Request, source: Source) -> bool:
        """
        Whether somebody at the address of a node has sent on what he had got: not to be copied once more.
        """
        headers = request.headers
        return self.has_host(source.host) and ("," in headers.first["via"] or headers.is_repeated("via"))

    def phone_via(self, request: Request) -> Via:
        """
        The Via below those of nodes.
        """
        vias = request.vias
        below = [via for via in vias[1:] if not self.is_node_at(via.host, via.port)]
        return below[0] if below else vias[-1]


@implementer(ITransactionUser)
class Screen:
    """
    Takes our own header fields out of what is no copy of a node, and keeps copies from the policy.
    """

    def __init__(
        self, user: ITransactionUser, senders: Senders, ids: Ids, copies: Mapping[str, ITransactionUser]
    ) -> None:
        """
        @param user: gets all else.
        @param copies: who gets copies of REGISTERs and PUBLISHes, by the method; else they are for the policy.
        """
        self._user = ITransactionUser(user)
        self._senders = senders
        self._ids = ids
        self._copies = {method: ITransactionUser(taker) for method, taker in copies.items()}

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}.
        """
        request: Request = transaction.request
        has_own = has_own_headers(request.headers)
        if request.method in _COPIED and (has_own or request.method in self._copies):
            try:
                if self._senders.is_copy(request, transaction.source):
                    self._copies.get(request.method, self._user).request_received(transaction)
                    return
            except RequestRefused as refusal:
                self._refuse(transaction, refusal)
                return
            except ParseError as error:
                self._refuse(transaction, refuse.bad_request(error.reason))
                return
        if has_own:
            remove_own_headers(request.headers)
        self._user.request_received(transaction)

    def _refuse(self, transaction: IServerTransaction, refusal: RequestRefused) -> None:
        first = transaction.request.headers.first
        tag = self._ids.stateless_tag(f"{first.get('via')} {first.get('call-id')}")
        transaction.respond_statelessly(refuse.answer(transaction.request, refusal, tag))

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser.malformed_request}.
        """
        self._user.malformed_request(error, source)

    def ack_received(self, request: Request, source: Source) -> None:
        """
        See L{ITransactionUser.ack_received}.
        """
        if has_own_headers(request.headers):
            remove_own_headers(request.headers)
        self._user.ack_received(request, source)

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}.
        """
        self._user.cancelled(transaction)

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}.
        """
        self._user.response_lost(transaction, reason)
