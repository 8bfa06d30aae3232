"""
The event packages of the node: who knows the state of each.
"""

from __future__ import annotations

from typing import Any

from sipdmq.interfaces.presence import IEventState, IEventStateListener
from sipdmq.records import EventDocument

__all__ = ["EventStates"]


class EventStates:
    """
    All L{IEventState}s, by package.
    """

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}
        self.packages: tuple[str, ...] = ()

    def add(self, state: IEventState, listener: IEventStateListener) -> None:
        """
        @param listener: told of its changes from now on.
        @raise ValueError: somebody knows one of its packages already.
        """
        state = IEventState(state)
        for package in state.packages():
            if package in self._states:
                raise ValueError(f"there is a package '{package}' already")
            self._states[package] = state
        self.packages = tuple(self._states)
        state.watch(listener)

    def drop(self, package: str) -> None:
        """
        Serve a package no more.
        """
        self._states.pop(package, None)
        self.packages = tuple(self._states)

    def document(self, presentity: str, package: str) -> EventDocument:
        """
        See L{IEventState.document}.

        @raise KeyError: nobody knows this package.
        """
        document: EventDocument = self._states[package].document(presentity, package)
        return document
