"""Runs what writes files in a forked child that kills itself at a chosen moment of the writing."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import transformers.modeling_utils


CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


class Killer:
    """Counts moments in which the files of a folder are being changed, and kills the process in one of them.

    Of a file that is written there are three: it is not there, it is there by half, it is there.
    """

    def __init__(self, folder: Path, moment: int):
        self.folder, self.left = str(folder), moment
        sys.addaudithook(self.hear)  # for good, and so only in a child
        self.watch(torch, "save", 1)
        self.watch(transformers.modeling_utils, "safe_save_file", 1)

    def pass_moment(self, half_written: str | None = None):
        self.left -= 1
        if self.left == 0:
            if half_written is not None:
                size = os.path.getsize(half_written) if os.path.exists(half_written) else 0
                with open(half_written, "ab") as file:
                    file.truncate(size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, args: tuple):
        if self.left <= 0 or event not in (*CHANGES, "open"):
            return
        path = str(args[0])
        if event in CHANGES and (path.startswith(self.folder) or args[-1] != -1):  # `rmtree` names files in a folder
            self.pass_moment()
        elif event == "open" and path.startswith(self.folder) and args[2] & os.O_TRUNC:
            self.pass_moment()
            self.pass_moment(half_written=path)

    def watch(self, module, name: str, place: int):
        """Pass moments around a function that writes a file outside of Python."""
        write = getattr(module, name)

        def watched(*args, **kwargs):
            self.pass_moment()
            result = write(*args, **kwargs)
            self.pass_moment(half_written=str(args[place]))
            return result

        setattr(module, name, watched)


def die_at_each_moment(folder: Path, action: Callable[[], object], every: int = 1) -> Iterator[int]:
    """Yield after each death of a child within `action`, which changes `folder`; the last child lives: yields 0."""
    moment = 1
    while True:
        child = os.fork()
        if child == 0:
            try:
                Killer(folder, moment)
                action()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            yield moment
        else:
            assert status == 0, "what was to be killed has failed by itself"
            yield 0
            return
        moment += every
