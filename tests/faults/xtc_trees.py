"""Good XTC files as trees that can be taken apart, damaged by their structure, and written again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple, Union

from prepare.formats.xtc1.format import (
    DATAGRAM,
    DATAGRAM_SIZE,
    EXTENT_OFFSET,
    FRAME_HEADER,
    TYPE_FRAME,
    TYPE_XTC,
    XTC,
    XTC_SIZE,
)

FIXTURES = Path(__file__).parents[1] / "data" / "xtc1"
# One DAQ and one camera-recorder stream of each run; a file that mixes them.
SEEDS = [
    ("plain/e815-r0054-s00-c00.xtc", "plain/e815-r0054-s80-c00.xtc"),
    ("untidy/e815-r0055-s00-c00.xtc", "untidy/e815-r0055-s80-c00.xtc"),
    ("camera_in_daq_stream/e815-r0056-s00-c00.xtc", "camera_in_daq_stream/e815-r0056-s01-c00.xtc"),
]
DATAGRAMS = 9  # of each file
EDGES = (
    0,
    1,
    19,
    20,
    21,
    39,
    40,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**28,
    2**31 - 1,
    2**31,
    2**32 - 21,
    2**32 - 20,
    2**32 - 1,
)


class Node(NamedTuple):
    """An Xtc: its first four words and its children or its payload. Its extent follows from them."""

    words: tuple[int, int, int, int]
    content: Union[list["Node"], bytes]


class Event(NamedTuple):
    """A datagram: its first five words, and its outermost Xtc."""

    words: tuple[int, int, int, int, int]
    root: Node


def events(raw: bytes) -> list[Event]:
    """The first DATAGRAMS of a good file, with frames of 2 x 3 pixels."""
    found, start = [], 0
    while len(raw) - start >= DATAGRAM_SIZE and len(found) < DATAGRAMS:
        words = DATAGRAM.unpack_from(raw, start)
        end = start + EXTENT_OFFSET + words[9]
        found.append(Event(words[:5], _node(raw, start + EXTENT_OFFSET, end)))
        start = end
    return found


def text(parts: list[Event]) -> bytes:
    """The file of `parts`."""
    return b"".join(
        DATAGRAM.pack(*event.words, 0, 0, 0, 0, 0)[:EXTENT_OFFSET] + _text(event.root) for event in parts
    )


def seeds() -> list[tuple[list[Event], list[Event]]]:
    """Pairs of small good files."""
    return [tuple(events((FIXTURES / name).read_bytes()) for name in pair) for pair in SEEDS]


def mutated(parts: list[Event], rng: random.Random) -> bytes:
    """A file of `parts` with one to four damages: to the structure, then to its bytes."""
    parts = list(parts)
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(len(parts)) if parts else 0
        what = rng.randrange(6)
        if not parts:
            break
        if what == 0:
            del parts[at]
        elif what == 1:
            parts.insert(rng.randrange(len(parts) + 1), parts[at])
        elif what == 2:
            words = list(parts[at].words)
            words[rng.randrange(5)] = _number(rng)
            parts[at] = parts[at]._replace(words=tuple(words))
        else:
            parts[at] = parts[at]._replace(root=_changed(parts[at].root, rng))
    raw = bytearray(text(parts))
    for _ in range(rng.randint(0, 2)):
        what = rng.randrange(5)
        if not raw:
            break
        at = rng.randrange(len(raw))
        if what == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            raw[at & ~3 : (at & ~3) + 4] = _number(rng).to_bytes(4, "little")
        elif what == 2:
            del raw[at:]
        elif what == 3:
            del raw[at : at + rng.choice((1, 4, 20, 40))]
        else:
            raw[at:at] = rng.randbytes(rng.choice((1, 4, 20, 40)))
    return bytes(raw)


def _changed(node: Node, rng: random.Random) -> Node:
    """`node` with one thing in it changed: a word, a child gone, doubled, wrapped, or its payload."""
    if isinstance(node.content, list) and node.content and rng.random() < 0.8:
        children, at = list(node.content), rng.randrange(len(node.content))
        what = rng.randrange(5)
        if what == 0:
            del children[at]
        elif what == 1:
            children.insert(at, children[at])
        elif what == 2:
            for _ in range(rng.choice((1, 14, 20))):
                children[at] = Node((0, 0, 0, 1 << 16 | TYPE_XTC), [children[at]])
        else:
            children[at] = _changed(children[at], rng)
        return node._replace(content=children)
    if isinstance(node.content, bytes) and rng.random() < 0.6:
        payload = bytearray(node.content)
        if payload and rng.random() < 0.7:
            at = 4 * rng.randrange((len(payload) + 3) // 4)
            payload[at : at + 4] = _number(rng).to_bytes(4, "little")
        else:
            del payload[rng.randrange(len(payload) + 1) :]
        return node._replace(content=bytes(payload))
    words = list(node.words)
    words[rng.randrange(4)] = rng.choice((_number(rng), words[3] ^ 1 << rng.randrange(32)))
    return node._replace(words=tuple(words))


def _number(rng: random.Random) -> int:
    return rng.choice((rng.choice(EDGES), rng.getrandbits(32), rng.randrange(64)))


def _node(raw: bytes, start: int, end: int) -> Node:
    *words, _ = XTC.unpack_from(raw, start)
    start += XTC_SIZE
    kind = words[3] & 0xFFFF
    if kind == TYPE_XTC and not words[0]:
        children = []
        while end - start >= XTC_SIZE:
            extent = XTC.unpack_from(raw, start)[4]
            if extent < XTC_SIZE:
                break
            children.append(_node(raw, start, start + extent))
            start += extent
        return Node(tuple(words), children)
    payload = raw[start:end]
    if kind == TYPE_FRAME and not words[0]:
        _, _, depth, offset = FRAME_HEADER.unpack_from(payload)
        payload = FRAME_HEADER.pack(3, 2, depth, offset) + payload[FRAME_HEADER.size :][:12]
    return Node(tuple(words), payload)


def _text(node: Node) -> bytes:
    content = node.content if isinstance(node.content, bytes) else b"".join(map(_text, node.content))
    return XTC.pack(*node.words, (XTC_SIZE + len(content)) & 0xFFFFFFFF) + content
