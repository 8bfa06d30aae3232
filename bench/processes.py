"""
What Linux counts for a process and all its descendants.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_seconds", "resident_bytes"]

#: Clock ticks per second in /proc/PID/stat.
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """
    @return: user and system time used so far by a process and all that descend from it.
    """
    ticks = 0
    for each in _descendants(pid):
        fields = _stat(each)
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def resident_bytes(pid: int) -> int:
    """
    @return: resident memory of them, a page that several of them share counted once (Linux' PSS), and pages of files
        not counted: code is shared with whatever else runs, and Linux drops and reads it at will.
    """
    kilobytes = 0
    for each in _descendants(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


def _stat(pid: int) -> list[str]:
    """
    @return: the fields of C{/proc/PID/stat} after the name: state, parent, ...; field 14 of proc(5) is number 11 here.
    @raise ProcessLookupError: there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    return text.rpartition(")")[2].split()


def _descendants(pid: int) -> list[int]:
    """
    @return: this process and the children of its children that live now.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(_stat(int(entry))[1])
            except ProcessLookupError:
                continue  # it ended while we looked
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found
