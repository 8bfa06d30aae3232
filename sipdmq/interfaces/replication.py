"""
Between the cluster (L{sipdmq.dmq}) and whoever replicates something over it, or wants to know who is in it.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface

from sipdmq.interfaces.messages import ITransactionUser

__all__ = ["IBroadcaster", "IChannelPeer", "IMembership", "INodeListener", "IRegistrar", "IRepairer", "IReplicator"]


class IMembership(Interface):
    """
    Who is in the cluster.
    """

    def nodes():
        """
        All nodes in the list, this one included, in whatever state.

        @return: a tuple of L{ClusterNode<sipdmq.records.ClusterNode>}
        """

    def is_from_node(source):
        """
        Whether a message came from the address of another node of the cluster, in whatever state, as Kamailio's
        C{dmq_is_from_node}.

        @param source: L{Source<sipdmq.records.Source>}
        @return: C{bool}
        """

    def watch(listener):
        """
        @param listener: L{INodeListener}, told of every change from now on.
        """


class INodeListener(Interface):
    """
    Wants to know who comes and goes: Kamailio's C{event_route[dmq:peer-up]} and so on.
    """

    def node_up(node):
        """
        @param node: L{ClusterNode<sipdmq.records.ClusterNode>}, active now, for the first time or again.
        """

    def node_down(node):
        """
        @param node: no longer active, but not given up.
        """

    def node_disabled(node):
        """
        @param node: it said farewell, or has not answered for long.
        """


class IChannelPeer(Interface):
    """
    What Kamailio calls a peer: one who sends and receives on one channel.
    """

    channel = Attribute("The name of the channel: the user part of the Request-URI, C{str}.")

    def message_received(message):
        """
        A message from a node that may send. Executed in order for one key, never twice for a retransmission.

        @param message: L{ChannelMessage<sipdmq.records.ChannelMessage>}
        @return: L{ChannelReply<sipdmq.records.ChannelReply>}, or a Deferred of it.
        """

    def keys_of(message):
        """
        Which records a message is about: messages that share one are worked on one after the other.

        @return: a sequence of C{str}; empty: it concerns all, and waits for all before it.
        """

    def node_joined(node):
        """
        A node is active, for the first time or after it was lost: time to sync.

        @param node: L{ClusterNode<sipdmq.records.ClusterNode>}
        """

    def encode(change):
        """
        A change that was put (L{IReplicator.put}), as the fragment of a message: C{bytes}.
        """

    def join(fragments):
        """
        Fragments of one or several changes as the body of one message.

        @return: C{(content_type, body)}: C{str}, C{bytes}
        """


class IRepairer(Interface):
    """
    An L{IChannelPeer} that can put right what a node has missed: it was away, or too much waited for it.
    """

    def repair(node):
        """
        Put (L{IReplicator.put_for}) what this node last changed itself, and what it removed, paged and paced.

        @param node: the L{ClusterNode<sipdmq.records.ClusterNode>}, active again, to which changes went lost.
        """


class IRegistrar(ITransactionUser):
    """
    What the cluster needs of the registrar.
    """

    registered = Attribute(
        "Called with the L{IServerTransaction<sipdmq.interfaces.messages.IServerTransaction>} of each REGISTER of a "
        "phone that was stored, when it has been answered; C{None}: nobody wants to know."
    )

    def copy_received(transaction, aor, received, max_contacts, decide=None):
        """
        A REGISTER that another node has accepted and sent on (WIRE §12): it is stored as L{Origin.REPLICATED
        <sipdmq.records.Origin>}, and answered.

        @param transaction: L{IServerTransaction<sipdmq.interfaces.messages.IServerTransaction>}
        @param aor: the canonical AoR that is registered.
        @param received: where the phone sent it from, as L{Binding.received<sipdmq.records.Binding>}.
        @param max_contacts: of the AoR, in place of our own limit.
        @param decide: what to make of the records of the AoR, L{Decide<sipdmq.records.Decide>}; C{None}: what a
            REGISTER of a phone would make of them.
        @raise RequestRefused: before anything was changed; so for ParseError.
        """


class IReplicator(Interface):
    """
    Takes changes to all nodes.
    """

    def put(channel, key, change):
        """
        Into the outbox of every other node: a later change of the same key takes the place of an earlier one that was
        not sent yet.

        @param key: C{str}
        @param change: whatever the L{IChannelPeer} of this channel can encode.
        """

    def put_for(node, channel, key, change):
        """
        Into the outbox of one node: for syncs and repairs.

        @param node: L{NodeName<sipdmq.records.NodeName>}
        """


class IBroadcaster(Interface):
    """
    Kamailio's functions: at once, without an outbox.
    """

    def broadcast(channel, body, content_type):
        """
        Send a message to all active nodes.

        @return: a Deferred of C{int}, how many have answered with 2xx.
        """

    def send(channel, node, body, content_type, max_forwards=1):
        """
        Send a message to one node.

        @param node: L{NodeName<sipdmq.records.NodeName>}
        @return: a Deferred of the L{Response<sipdmq.sip.message.Response>}; it fails with UnreachableError when none
            came in time.
        """
