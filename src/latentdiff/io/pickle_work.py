"""Measuring how much work a pickle makes, without building the values that it describes.

A few kilobytes can describe a value that contains others by the billion, or that is nested deeper than a program's
stack. Such a value does no harm until it is hashed, passed to a constructor or printed in a message; that never ends,
or it ends the program. So the values to which this would happen are measured as trees, in which a value counts as often
as it is reached.
"""

from __future__ import annotations

import pickletools

MAX_OPERATIONS = 600_000  # a tensor needs about forty, and the largest checkpoints have a few thousand tensors
MAX_WORK = 2_000_000
MAX_DEPTH = 200

# Groups of the pickle operations: those that store a value in the memo, fetch one, make an empty container, set items
# of a container, add to a container, and call something.
PUT, GET = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
EMPTY = ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET")
SET = ("SETITEM", "SETITEMS")
GROW = ("APPEND", "APPENDS", *SET)
CALL = ("REDUCE", "NEWOBJ", "BINPERSID")


def _takes(before: list[pickletools.StackObject]) -> tuple[int, bool]:
    """How many values an operation takes off the stack, and whether it also takes all above the last mark."""
    marked = pickletools.markobject in before
    return before.index(pickletools.markobject) if marked else len(before), marked


TAKES = {operation.name: _takes(operation.stack_before) for operation in pickletools.opcodes}


class Node:
    """A value of the pickle, as a tree.

    Attributes:
        inside: The values in it; None for a value that can't contain any.
        size: The number of values in the tree; 0 while it is not known.
        depth: The number of levels of the tree.
    """

    __slots__ = ("depth", "inside", "size")

    def __init__(self, inside: list[Node] | None = None, size: int = 0) -> None:
        self.inside = inside
        self.size = size
        self.depth = 0


LEAF = Node(size=1)


class PickleWork:
    """The work that a pickle makes: call `follow` with each of its operations, then `check`."""

    def __init__(self) -> None:
        self.stack: list[Node] = []
        self.marks: list[list[Node]] = []
        self.memo: dict[object, Node] = {}
        self.used: list[Node] = []
        self.operations = 0

    def follow(self, operation: pickletools.OpcodeInfo, argument: object) -> None:
        """Follow the next operation.

        Raises:
            ValueError: If there are too many operations, or this one is not possible here.
            LookupError: If the operation needs values that aren't there.
        """
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            raise ValueError(f"it has more than {MAX_OPERATIONS} operations")
        if operation.name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif operation.name in PUT:
            self.memo[argument] = self.stack[-1]
        elif operation.name in GET:
            self.stack.append(self.memo[argument])
        elif TAKES[operation.name] == (0, False):
            if operation.stack_after:
                self.stack.append(Node() if operation.name in EMPTY else LEAF)
        else:
            self._replace(operation.name, self._take(*TAKES[operation.name]))

    def _take(self, count: int, marked: bool) -> list[Node]:
        """Pop `count` values, after all those above the last mark if `marked`."""
        above: list[Node] = []
        if marked:
            above, self.stack = self.stack, self.marks.pop()
        if count > len(self.stack):
            raise IndexError("an operation takes more values than there are")
        place = len(self.stack) - count
        below = self.stack[place:]
        del self.stack[place:]
        return below + above

    def _replace(self, name: str, taken: list[Node]) -> None:
        """Push the result of an operation on the values that it took; BUILD's state does not become a part of it."""
        made = taken[0] if name in GROW or name == "BUILD" else Node(taken)
        if name in GROW:
            if made is LEAF:
                raise ValueError("it adds to a value that is not a container")
            made.inside = made.inside or []
            made.inside += taken[1:]
        self.stack.append(made)
        if name in CALL:
            self.used.append(made)
        elif name in SET:
            self.used += (key for key in taken[1::2] if key is not LEAF)

    def check(self) -> None:
        """Check the values that would be hashed, passed to a call or printed.

        Raises:
            ValueError: If they are too large or too deep, or one contains itself.
        """
        total = 0
        for node in self.used:
            measure(node)
            total += node.size
            if total > MAX_WORK:
                raise ValueError(f"it describes values of more than {MAX_WORK} parts")


def measure(root: Node) -> None:
    """Set the size and depth of a value and of all values in it, without recursion.

    Raises:
        ValueError: If the value is too large or too deep, or contains itself.
    """
    waiting, opened = [root], set()
    while waiting:
        node = waiting[-1]
        inside = node.inside or []
        unknown = [] if node.size else [value for value in inside if not value.size]
        if unknown and id(node) in opened:
            raise ValueError("it describes a value that contains itself")
        if unknown:
            opened.add(id(node))
            waiting += unknown
            continue
        waiting.pop()
        if node.size:
            continue
        node.size = 1 + sum(value.size for value in inside)
        node.depth = 1 + max((value.depth for value in inside), default=0)
        if node.size > MAX_WORK or node.depth > MAX_DEPTH:
            raise ValueError(f"it describes a value of more than {MAX_WORK} parts or {MAX_DEPTH} levels")
