"""Ways to spoil bytes, JSON, archives and pictures: by chance, and so that checksums are right again."""

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    256,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**47,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(2**63),
    0.5,
    -0.0,
    1e-45,
    1e38,
    1e39,
    1e308,
    -1e308,
)
ODD = (
    None,
    True,
    False,
    "",
    "x",
    "a" * 3000,
    "0",
    "nan",
    "input",
    [],
    {},
    [[]],
    [1, [2, [3]]],
    [2**40] * 3,
    "\u0000",
    "é",
    [0] * 2000,
    {"a": {"a": {"a": {}}}},
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to three places changed, cut out, doubled or made up."""
    copy = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3))):
        at = rng.randrange(len(copy)) if copy else 0
        ways: list[Callable[[], Any]] = [
            lambda at=at: copy.__setitem__(at, copy[at] ^ 1 << rng.randrange(8)),
            lambda at=at: copy.__setitem__(slice(at, at + 4), rng.randbytes(4)),
            lambda at=at: copy.__delitem__(slice(at, None)),
            lambda at=at: copy.__delitem__(slice(at, at + rng.randrange(1, 9))),
            lambda at=at: copy.__setitem__(slice(at, at), copy[at : at + rng.randrange(1, 65)]),
            lambda: copy.extend(rng.randbytes(rng.randrange(1, 9))),
            lambda at=at: copy.__setitem__(slice(at, at + 8), b"\xff" * 8),
            lambda at=at: copy.__setitem__(slice(at, at + 4), rng.choice((b"\0\0\0\0", b"\x7f\xff\xff\xff"))),
        ]
        if copy:
            rng.choice(ways)()
    return bytes(copy)


def change(document: Any, rng: random.Random, words: Sequence[Any] = ()) -> None:
    """Replaces, removes, doubles or exchanges one thing somewhere inside lists and dicts. words: that belong there."""
    while True:
        keys: list[Any] = list(document) if isinstance(document, dict) else list(range(len(document)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = document[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.9:
            document = inner
            continue
        dice = rng.random()
        if dice < 0.12:
            del document[key]
        elif dice < 0.2 and isinstance(document, list):
            document.append(inner)
        elif dice < 0.3:
            document[key] = document[rng.choice(keys)]
        elif dice < 0.36 and isinstance(document, dict):
            document[str(rng.choice((*words, *ODD)))[:50]] = document.pop(key)
        else:
            near: list[Any] = []
            if isinstance(inner, int | float) and not isinstance(inner, bool):
                near = [inner + 1, inner - 1, inner * 2, -inner]
            elif isinstance(inner, str):
                near = [inner[:-1], inner + inner]
            chosen = rng.choice([*near, *near, *rng.choices((*NUMBERS, *ODD), k=4), *rng.choices(words or ODD, k=3)])
            document[key] = copy.deepcopy(chosen)  # it may be changed in its turn
        return


def alter(document: Any, rng: random.Random) -> None:
    """Puts something likely in place of one number, name or item: a number near it, or what stands there elsewhere."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(document)
    if not places:
        return
    inside, key = rng.choice(places)
    inner = inside[key]
    alike = [there[at] for there, at in places if type(there[at]) is type(inner)]
    if isinstance(inner, int | float) and not isinstance(inner, bool) and rng.random() < 0.7:
        inside[key] = rng.choice((inner + 1, inner - 1, inner * 2, -inner, 0, 1, 2, 255, 2**20, 2**31 - 1, -(2**31)))
    elif isinstance(inner, list) and inner and rng.random() < 0.5:
        inside[key] = rng.choice((inner[:-1], [*inner, inner[-1]], inner[::-1]))
    else:
        inside[key] = copy.deepcopy(rng.choice(alike))


def changed_json(data: bytes, rng: random.Random, words: Sequence[Any] = ()) -> bytes:
    """A JSON text with one or two things changed."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        if isinstance(document, dict | list):
            change(document, rng, words)
    return json.dumps(document).encode()


def rezipped(data: bytes, spoil: Callable[[str, bytes], bytes], rng: random.Random, packed: bool = False) -> bytes:
    """An archive with one member spoilt, its checksums right again; now and then a member is renamed, missing or
    twice there. packed: whether members may be compressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    dice = rng.random()
    if dice < 0.04:
        del members[at]
    elif dice < 0.08:
        members[at] = (rng.choice(("x", name + "x", "../" + name, name.upper(), "a/b/c", "")) or "e", content)
    elif dice < 0.1:
        members.append((name, content))
    else:
        members[at] = (name, spoil(name, content))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members:
            how = zipfile.ZIP_DEFLATED if packed and rng.random() < 0.3 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return out.getvalue()


def changed_png(data: bytes, rng: random.Random) -> bytes:
    """A PNG with one chunk changed under a right checksum, or doubled, moved or made up."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    which = rng.randrange(len(chunks))
    kind, content = chunks[which]
    dice = rng.random()
    if kind == b"IHDR" and dice < 0.7:
        fields = list(struct.unpack(">IIBBBBB", content))
        place = rng.randrange(7)
        fields[place] = rng.choice(
            (0, 1, 2, 3, 4, 6, 8, 16, 255) if place > 1 else (0, 1, 7, 31, 2**16, 2**31 - 1, 2**31)
        )
        content = struct.pack(">IIBBBBB", *fields)
    elif dice < 0.6:
        content = damaged(content, rng)
    elif dice < 0.7:
        kind = rng.choice(
            (b"tEXt", b"zTXt", b"iTXt", b"PLTE", b"tRNS", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"gAMA")
        )
        content = rng.choice((content, zlib.compress(bytes(10**5)), b"k\0\0" + zlib.compress(bytes(10**5)), b""))
    elif dice < 0.8:
        chunks.append(chunks[which])
    elif dice < 0.9:
        rng.shuffle(chunks)
        kind, content = chunks[which]
    chunks[which] = (kind, content)
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
