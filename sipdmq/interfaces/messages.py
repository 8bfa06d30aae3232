"""
Between transports, transactions and transaction users (RFC 3261 §5: the layers).

One answer is a Deferred; many answers, or none, are calls on a callback interface.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface

__all__ = [
    "IClientTransaction",
    "IClientUser",
    "IFlows",
    "IMessageReceiver",
    "IRequestSender",
    "IServerTransaction",
    "ITargetResolver",
    "ITransactionUser",
    "ITransport",
]


class ITransport(Interface):
    """
    What the transaction layer asks of the network (RFC 3261 §18).
    """

    def send(data, target):
        """
        Send one message. Never raises: a failure is told to L{IMessageReceiver.transport_failed}, always later, never
        before this returns.

        @param data: C{bytes}, the whole message.
        @param target: a L{Target<sipdmq.records.Target>}. A stream is reused or opened; what is waiting for it to
            open is bounded in bytes.
        """

    def is_reliable(target):
        """
        @return: C{bool}, whether messages to this target arrive or the failure is told.
        """

    def sent_by(target):
        """
        How a request to C{target} names us in its Via.

        @return: C{str}, C{"UDP 192.0.2.1:5060"}: the end of C{sent-protocol}, a space and C{sent-by}
            (RFC 3261 §18.1.1).
        @raise UnreachableError: no listener of ours has that protocol and address family.
        """

    def response_target(request, source):
        """
        Where responses to C{request} go (RFC 3261 §18.2.2, RFC 3581): back over the connection, else to the address
        it came from, at rport's port if that was asked for, else at the sent-by's.

        @return: a L{Target<sipdmq.records.Target>}
        """


class IMessageReceiver(Interface):
    """
    What the transports hand over to.
    """

    def message_received(message, source):
        """
        A message that passed the parser; of a request, received and rport stand in its top Via already.

        @param message: L{Request<sipdmq.sip.message.Request>} or L{Response<sipdmq.sip.message.Response>}
        @param source: L{Source<sipdmq.records.Source>}
        """

    def malformed_request(error, source):
        """
        A request that did not pass the parser, and of which enough could be read to answer it.

        @param error: L{ParseError<sipdmq.errors.ParseError>} whose C{request} is set
        @param source: L{Source<sipdmq.records.Source>}
        """

    def transport_failed(target, reason):
        """
        What was sent to C{target} has not arrived, or will not.

        @param target: the very L{Target<sipdmq.records.Target>} given to L{ITransport.send}
        @param reason: C{str}, for the log
        """


class ITransactionUser(Interface):
    """
    A core or service on top of the transactions (RFC 3261 §5: TU).
    """

    def request_received(transaction):
        """
        A new request, never a retransmission, never ACK, never CANCEL.

        @param transaction: L{IServerTransaction}; it is answered once with a final response, now or later.
        @raise RequestRefused: (services, to the dispatcher, which answers statelessly) nothing was changed.
        @raise ParseError: (likewise) a field that the parser does not look at cannot be read.
        """

    def malformed_request(error, source):
        """
        As L{IMessageReceiver.malformed_request}: to be answered statelessly.
        """

    def ack_received(request, source):
        """
        An ACK that belongs to no transaction of ours, or to a 2xx: it goes with the dialog.
        """

    def cancelled(transaction):
        """
        The client cancelled this transaction, which has no final response yet. The CANCEL has been answered.
        """

    def response_lost(transaction, reason):
        """
        A response to this transaction could not be sent (RFC 3261 §17.2.4). Not told for final responses of other
        methods than INVITE: their client repeats the request, and gets them then.

        @param reason: C{str}, for the log
        """


class IServerTransaction(Interface):
    """
    One received request and what was answered to it (RFC 3261 §17.2).
    """

    request = Attribute("The L{Request<sipdmq.sip.message.Request>}, its top Via stamped.")
    source = Attribute("The L{Source<sipdmq.records.Source>} it came from.")
    is_cancelled = Attribute("Whether the client has cancelled it: C{bool}.")
    cancel_reasons = Attribute("The Reason lines of the CANCEL (RFC 3326), a list of C{str}; empty without.")
    to_tag = Attribute("The To tag given so far, by a response or by the 200 to a CANCEL; empty before.")

    def respond(response):
        """
        Answer, and keep the answer for retransmissions.

        @raise TransactionStateError: there was a final response before.
        """

    def respond_statelessly(response):
        """
        Answer with a final response and forget the request: a retransmission will be a new request. For whatever
        costs less to decide again than to remember, and for all that is sent before authentication
        (RFC 3261 §26.3.2.4), so that a flood holds no memory.

        @raise TransactionStateError: there was a response before.
        """

    def drop():
        """
        Forget the request without an answer: one that may not be given (RFC 3261 §26.3.2.4 on floods).
        """

    def hold_small():
        """
        Of a request that came over UDP from somebody who has not proved to be there: a refusal that would make all that
        was sent to him three times as much as came from him is shortened, and one of an INVITE not repeated by a timer
        beyond that. It is sent once in any case, and a 2xx as it is.
        """

    def forget_request():
        """
        Its user needs the request no more, only to be able to answer: from now on C{request} has a method and a
        Request-URI, no headers and no body. For after the final response to an INVITE, whose transaction lives on for
        half a minute.
        """

    def is_merged():
        """
        Whether the same request arrived before on another path (RFC 3261 §8.2.2.2). Only who answers as the UAS may
        refuse it for that, with 482: for a proxy, forks and spirals are legal.

        @return: C{bool}
        """


class IClientTransaction(Interface):
    """
    One request that we sent (RFC 3261 §17.1).
    """

    request = Attribute(
        "The L{Request<sipdmq.sip.message.Request>} as it was sent last, with our Via on top; its headers are "
        "forgotten when the user has been told of a final response."
    )
    target = Attribute("The L{Target<sipdmq.records.Target>} that it was sent to last.")

    def cancel(reasons=()):
        """
        Send CANCEL for an INVITE, as soon as a provisional response allows it (RFC 3261 §9.1). Without effect after
        a final response, for other methods, and the second time.

        @param reasons: lines for it, C{'Reason: SIP;cause=200;text="Call completed elsewhere"'} (RFC 3326).
        """

    def abandon():
        """
        Send the request no more, and tell nobody what becomes of it.
        """


class IClientUser(Interface):
    """
    Who sent a request and waits for what becomes of it. Told later, never before C{send_request} returns.
    """

    def response_received(response):
        """
        A response, provisional or final; of an INVITE perhaps several 2xx (RFC 6026).
        """

    def timed_out():
        """
        No target gave a final response in time. To be treated as 408 (RFC 3261 §16.9).
        """

    def unreachable(reason):
        """
        No target could be sent to. To be treated as 503 (RFC 3261 §16.9).
        """


class IRequestSender(Interface):
    """
    Sends requests for transaction users.
    """

    def send_request(request, targets, user, prepare=None, loop="", timers=None):
        """
        Send a request in a client transaction. The next target gets it, with a new branch, when one times out
        without any response, cannot be sent to, or answers 503 (RFC 3263 §4.3).

        @param request: L{Request<sipdmq.sip.message.Request>}, without a Via of ours.
        @param targets: non-empty tuple of L{Target<sipdmq.records.Target>}, first choice first.
        @param user: L{IClientUser}
        @param prepare: called for each target with a copy of the request, the target, and what our Via will say
            (L{ITransport.sent_by}), just before the copy gets that Via; it may change the headers of the copy.
        @param loop: what the branches shall end with (L{Ids.loop_part<sipdmq.sip.ids.Ids.loop_part>}).
        @param timers: L{RequestTimers<sipdmq.sip.timers.RequestTimers>} in place of the usual ones, of a few lengths
            that the configuration knows; L{None}: those of RFC 3261.
        @return: L{IClientTransaction}
        """

    def user_of(request):
        """
        Who has sent a request that has come back to us: unchanged but for what we wrote into our own Via when it
        arrived, and while its transaction waits for an answer.

        @param request: L{Request<sipdmq.sip.message.Request>} as it was received.
        @return: L{IClientUser}; L{None} for any other request.
        """

    def send_stateless(message, target):
        """
        Send once, without transaction: the ACK for a 2xx, or a response to an ACK-less request. A request gets a Via
        of ours.

        @raise UnreachableError: for a request, when nothing of ours can send there.
        """


class ITargetResolver(Interface):
    """
    RFC 3263: from a URI to targets.
    """

    def resolve(uri):
        """
        @param uri: L{SipURI<sipdmq.sip.uri.SipURI>}
        @return: a Deferred of a non-empty tuple of L{Target<sipdmq.records.Target>}, first choice first, already
            fired for a numeric host.
        @raise UnreachableError: (failure of the Deferred) no such name, no address, no answer from DNS in time, or a
            transport that we have not got.
        """


class IFlows(Interface):
    """
    The connections that are open now (RFC 5626: flows).
    """

    def is_alive(flow):
        """
        @param flow: C{str}, the token of L{Source<sipdmq.records.Source>} or of a binding.
        @return: C{bool}
        """

    def target_of(flow):
        """
        @return: the L{Target<sipdmq.records.Target>} at the other end, or L{None} when the connection is gone.
        """

    def flow_from(protocol, host, port):
        """
        The connection that somebody opened to us from this very address. With TLS he has shown no name by that: use it
        for who was authenticated over it, as a phone without certificate is (RFC 5630 §3.1.1), and for nobody else.

        @return: C{str}, its token; empty when there is none.
        """
