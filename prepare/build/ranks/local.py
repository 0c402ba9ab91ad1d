"""Ranks that are copies of this process, on this machine, without MPI.

Copied before anything is opened, so that each opens the source for itself, as MPI's ranks do. They leave
signals to rank 0, which ends them whatever happens to it; if it is killed, they see its pipe closed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, Dict, Iterator, NoReturn, Optional, Tuple

from common import cli, interrupt, progress
from common.errors import UserError
from prepare.build.ranks.team import GRACE, Several, Team


class LocalTeam(Several):
    """This process and its copies. pipes: of rank 0 to all others, of those to it; pids: of the copies."""

    def __init__(self, rank: int, size: int, pipes: Dict[int, Connection], pids: Dict[int, int]) -> None:
        super().__init__(rank, size)
        self._pipes, self._pids = pipes, pids

    def send(self, rank: int, tag: int, message: Any) -> None:
        try:
            self._pipes[rank].send((tag, message))
        except OSError:
            self._gone(rank)

    def take(self) -> Optional[Tuple[int, Any]]:
        for rank, pipe in self._pipes.items():
            try:
                if pipe.poll():
                    return pipe.recv()
            except (EOFError, OSError):
                self._gone(rank)
        return None

    def end(self) -> None:
        """Rank 0: end the others, who have nothing to do any more or are not to go on."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()

    def _gone(self, rank: int) -> NoReturn:
        if self.rank:
            os._exit(1)  # rank 0 was killed; what was made is kept
        pid = self._pids.pop(rank)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code >= 0:
            sys.exit(code or 1)  # it has told why
        why = "; was there too little memory for so many --jobs?" if code == -signal.SIGKILL else ""
        raise UserError(f"process {pid}, rank {rank}, was ended by {signal.Signals(-code).name}{why}")


@contextlib.contextmanager
def together(size: int) -> Iterator[Team]:
    """`size` processes, this one and copies of it, which end with the block; an error in one ends all."""
    if size == 1:
        yield Team()
        return
    members = _copied(size)
    if members.rank:
        yield from _as_a_copy(members)
    try:
        yield members
    finally:
        members.end()


def _copied(size: int) -> LocalTeam:
    """What this process is to the others: the copies return from here as well."""
    pipes: Dict[int, Connection] = {}
    pids: Dict[int, int] = {}
    sys.stdout.flush()  # or every copy would print what waits here
    sys.stderr.flush()
    for rank in range(1, size):
        ours, its = multiprocessing.Pipe()
        pid = os.fork()
        if not pid:
            # A pipe shows its end only when nobody else holds it open.
            for pipe in (ours, *pipes.values()):
                pipe.close()
            return LocalTeam(rank, size, {0: its}, {})
        its.close()
        pipes[rank], pids[rank] = ours, pid
    return LocalTeam(0, size, pipes, pids)


def _as_a_copy(members: LocalTeam) -> Iterator[Team]:
    """The block in a copy of the process, which ends here."""
    progress.silence()
    for number in interrupt.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    code = 0
    try:
        yield members
    except BaseException as error:
        time.sleep(GRACE)
        code = cli.tell(error, f"rank {members.rank}: ")
    os._exit(code)
