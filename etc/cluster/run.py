"""
Three nodes in one terminal, each line of their logs with the name of the node in front: C{make cluster}.

    python etc/cluster/run.py TWISTD [FILE.ini ...]
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
PATIENCE = 10.0  # seconds for a node to stop


def copy_log(name: str, log: IO[str]) -> None:
    """
    Write each line of a node's log with its name in front, until the node ends.
    """
    for line in log:
        sys.stdout.write(f"{name} {line}")
        sys.stdout.flush()


def stop(nodes: list[subprocess.Popen[str]]) -> None:
    """
    End all that still run.
    """
    for node in nodes:
        if node.poll() is None:
            node.send_signal(signal.SIGTERM)
    for node in nodes:
        try:
            node.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            node.kill()


def main(twistd: str, files: list[Path]) -> int:
    """
    @return: the exit status: that of the first node that ended by itself.
    """
    nodes: list[subprocess.Popen[str]] = []
    ended = threading.Event()

    def watch(node: subprocess.Popen[str], name: str) -> None:
        assert node.stdout is not None
        copy_log(name, node.stdout)
        node.wait()
        ended.set()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for file in files:
            # Groups of their own, or Ctrl-C would reach each node twice.
            node = subprocess.Popen(
                [twistd, "-n", "--pidfile=", "sipdmq", "-c", str(file)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            )
            nodes.append(node)
            threading.Thread(target=watch, args=(node, file.stem), daemon=True).start()
        while not ended.wait(0.5):
            pass
        status = next((node.returncode for node in nodes if node.poll() is not None), 0)
        sys.stdout.write(f"a node has ended (status {status}): the others are stopped\n")
        return status or 1
    except KeyboardInterrupt:
        return 0
    finally:
        stop(nodes)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} TWISTD [FILE.ini ...]")
    sys.exit(main(sys.argv[1], [Path(name) for name in sys.argv[2:]] or sorted(HERE.glob("*.ini"))))
