"""
Between the cluster (L{sipdmq.dmq}) and whoever replicates something over it, or wants to know who is in it.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface

from sipdmq.interfaces.messages import ITransactionUser

__all__ = [
    "IBroadcaster",
    "IChannelPeer",
    "IMembership",
    "INodeListener",
    "IRegistrar",
    "IRepairer",
    "IReplicator",
    "IRestorer",
    "ISynced",
]


class IMembership(Interface):
    """
    Who is in the cluster.
    """

    local = Attribute("The L{NodeName<sipdmq.records.NodeName>} of this node.")

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

    def answers_for(told_by):
        """
        Whether this node repairs others in what another one has changed last: it is the heir of a lost one.

        @param told_by: its name, as in L{Binding.told_by<sipdmq.records.Binding>}; empty: this node itself.
        @return: C{bool}, for all that is known now.
        """

    def has_lost():
        """
        Whether a node was lost of late; else L{passes_on} and L{teller_to_all} have nothing to say.

        @return: C{bool}
        """

    def passes_on(told_by):
        """
        Whether this node tells all others what it hears of a lost node's changes from somebody else.

        @param told_by: as for L{answers_for}.
        @return: C{bool}
        """

    def teller_to_all(told_by):
        """
        Whom this node tells what a lost node has changed and it hears only now, so that all get it: the heir.

        @param told_by: as for L{answers_for}.
        @return: L{NodeName<sipdmq.records.NodeName>}; L{None}: nobody: that node is not lost, or this one is its heir.
        """

    def restorer_of(node):
        """
        Which node repairs a Kamailio that is back: it does not mind what is newer, so one does it for all.

        @param node: its L{NodeName<sipdmq.records.NodeName>}
        @return: a L{NodeName<sipdmq.records.NodeName>}, perhaps of this node; L{None}: it was not lost of late, and
            who owes it something repairs it.
        """

    def has_missed(node):
        """
        Whether a node that counts as active all the time has left messages without an answer for so long that they were
        given up, and is now to be repaired.

        @param node: its L{NodeName<sipdmq.records.NodeName>}
        @return: C{bool}
        """

    def wants_all(node):
        """
        A node that has not said that it is one of ours asks for everything: if it is a Kamailio that has been here for
        a while, it was started anew.

        @param node: its L{NodeName<sipdmq.records.NodeName>}
        """

    def clock_difference(told_by):
        """
        How far the clock of another node is ahead of ours.

        @param told_by: as for L{answers_for}.
        @return: seconds, negative when it is behind; L{None}: not known.
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

    # C{group_of(key)}, where a channel has it: keys of one group are never on their way at the same time, as one of
    # its changes bears on another, and a receiver may take messages in any order. By default each key is a group.
    #
    # C{is_needless(fragments, status)}, where a channel has it: whether an error that is the answer to a message says
    # that its receiver has no need of it; so it is no refusal.

    def encode(change):
        """
        A change that was put (L{IReplicator.put}), as the fragment of a message: C{bytes}.
        """

    def join(fragments):
        """
        Fragments of one or several changes as the body of one message.

        @return: C{(content_type, body)}: C{str}, C{bytes}
        """


class IRepairer(IChannelPeer):
    """
    An L{IChannelPeer} that can put right what a node has missed: it was away, or too much waited for it, or who told it
    is gone.
    """

    def repair(node, age):
        """
        Put (L{IReplicator.put_for}, with this age) what this node answers for (L{IMembership.answers_for}), removals
        too, paged and paced: what was changed in the last C{age} seconds.

        @param node: the L{ClusterNode<sipdmq.records.ClusterNode>}, active again, to which changes went lost.
        @param age: seconds.
        """

    def hand_over(node, lost, age):
        """
        Put, likewise, what a lost node has changed last and told: the one that gets it answers for it now, or has asked
        for it, or is a Kamailio.

        @param lost: its name, as in L{Binding.told_by<sipdmq.records.Binding>}.
        @param age: seconds since when.
        """


class ISynced(Interface):
    """
    What an L{IChannelPeer} is besides whose records all nodes have.
    """
    def taken_back(node):
        """
        In place of L{node_joined<IChannelPeer.node_joined>}, for a Kamailio that was lost to us, or we to it: it has
        told us nothing meanwhile, and does not tell it again unless it is asked.

        @param node: L{ClusterNode<sipdmq.records.ClusterNode>}
        """

    def older_met(node, age):
        """
        A node of ours was there before this one, and apart from it: this one may have told others that it had
        everything, and has not.

        @param node: L{ClusterNode<sipdmq.records.ClusterNode>}
        @param age: seconds since it was started.
        """

    def forgotten(name):
        """
        A node is in the list no more: whatever is kept for it goes.

        @param name: L{NodeName<sipdmq.records.NodeName>}
        """


class IRestorer(IChannelPeer):
    """
    An L{IChannelPeer} that can put a Kamailio right again of which this node itself, or all, may have missed something.
    """

    def restore(node, age, is_for_all=False):
        """
        Ask the Kamailio for what it has, and then put (L{IReplicator.put_for}) what counts of all that was changed in
        the last C{age} seconds, by whomever. Until then it is not told what others have told.

        @param node: the L{ClusterNode<sipdmq.records.ClusterNode>}, active all the time.
        @param age: seconds.
        @param is_for_all: what it has and nobody else may have, is passed on to all: a node is lost that may have told
            it to the Kamailio alone.
        """

    def exchange(node):
        """
        In place of L{node_joined<IChannelPeer.node_joined>}, for a Kamailio that will not ask for what we have: ask it,
        and then put what counts of all that there is.

        @param node: the L{ClusterNode<sipdmq.records.ClusterNode>}
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

    def put_for(node, channel, key, change, age=0.0):
        """
        Into the outbox of one node: for syncs and repairs.

        @param node: L{NodeName<sipdmq.records.NodeName>}
        @param age: seconds since the change was made, or the oldest that the repair is about: if it gets lost once
            more, the next repair begins there.
        @return: L{None}, or a Deferred when much waits already: it fires when there is room for more.
        """

    def is_under_way(node, channel, key):
        """
        Whether something about a key, or another of its group, is on its way to a node, and not known to have arrived.

        @param node: L{NodeName<sipdmq.records.NodeName>}
        @return: C{bool}
        """

    def owe(node, channel, age):
        """
        A node lacks what was changed in the last C{age} seconds, and nobody is sending it: it is repaired
        (L{IRepairer.repair}) as soon as it can be.

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

    def send(channel, node, body, content_type, max_forwards=1, is_slow=False):
        """
        Send a message to one node.

        @param node: L{NodeName<sipdmq.records.NodeName>}
        @param is_slow: what it asks for takes seconds, and is done again for each copy: it is repeated late.
        @return: a Deferred of the L{Response<sipdmq.sip.message.Response>}; it fails with UnreachableError when none
            came in time.
        """
