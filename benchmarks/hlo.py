"""What an optimized program of XLA moves and sends, counted in its text.

The text is that of ``compiled.as_text()``: one computation after the other, the entry computation
with the instructions that a device executes, each with the shape of its result.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

BITS = {"pred": 8, "token": 0, "opaque": 0}  # the others end in their number of bits
SHAPE = re.compile(r"\b(pred|token|opaque|bf16|[a-z]\d\w*)\[([\d,]*)\](\{[^}]*\})?")
ON_CHIP = re.compile(r"S\([1-9]\d*\)")  # a memory space other than the device's main memory
COMMENT = re.compile(r"/\*.*?\*/")
HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
NAME = re.compile(r"%([\w.\-]+)")
CALLED = re.compile(r"(body|to_apply|calls)=%?([\w.\-]+)")
SOURCE = re.compile(r'op_name="([^"]*)"')
VIEW = 'custom_call_target="ConcatBitcast"'  # slices that were copied to where they are one array
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')

BACKGROUND = ("copy-start", "slice-start", "async-start")  # what a copying engine does
# What names values and moves nothing.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency"),
}
COLLECTIVES = {
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array that an instruction takes or gives."""

    bytes: int
    scalar: bool
    on_chip: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation."""

    name: str
    opcode: str
    result: tuple[Shape, ...]
    operands: tuple[str, ...]
    called: dict[str, str]
    trips: int
    is_view: bool
    source: str

    @property
    def is_free(self) -> bool:
        """Whether it moves nothing itself."""
        return self.is_view or self.opcode in FREE or self.opcode.endswith("-done")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a program's instructions move.

    Attributes:
      bytes: read from and written to main memory by all of them.
      kernels: how many there are, but for copies in the background.
      array_kernels: those of them that take or give more than scalars.
    """

    bytes: int
    kernels: int
    array_kernels: int


def shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a shape, those of a tuple one after the other.

    >>> [shape.bytes for shape in shapes("(f32[2,3]{1,0:T(8,128)S(1)}, bf16[8]{0}, pred[])")]
    [24, 16, 1]
    """
    found = []
    for dtype, dimensions, layout in SHAPE.findall(text):
        entries = math.prod(map(int, filter(None, dimensions.split(","))))
        found.append(
            Shape(
                bytes=math.ceil(entries * _bits(dtype) / 8),
                scalar=not dimensions,
                on_chip=ON_CHIP.search(layout) is not None,
            )
        )
    return tuple(found)


def _bits(dtype: str) -> int:
    if dtype in BITS:
        return BITS[dtype]
    bits = re.search(r"\d+", dtype)
    assert bits is not None
    return int(bits[0])


def computations(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """The entry computation's name, and the instructions of each computation."""
    entry, name = "", ""
    found: dict[str, list[Instruction]] = {}
    for line in COMMENT.sub("", text).splitlines():
        if header := HEADER.match(line):
            name = header[2]
            found[name] = []
            entry = name if header[1] else entry
        elif name and (match := INSTRUCTION.match(line)):
            found[name].append(_instruction(match[1], match[2]))
    if not entry:
        raise ValueError("the text holds no entry computation.")
    return entry, found


def _instruction(name: str, text: str) -> Instruction:
    """An instruction from what follows its name: a shape, an opcode, operands, attributes."""
    shape_end = _closing(text) if text.startswith("(") else text.index(" ")
    opcode, _, _ = text[shape_end:].lstrip().partition("(")
    start = text.index("(", shape_end)
    end = start + _closing(text[start:])
    trips, source = TRIPS.search(text, end), SOURCE.search(text, end)
    return Instruction(
        name=name,
        opcode=opcode,
        result=shapes(text[:shape_end]),
        operands=tuple(NAME.findall(text[start:end])),
        called=dict(CALLED.findall(text[end:])),
        trips=int(trips[1]) if trips else 1,
        is_view=VIEW in text[end:],
        source=source[1] if source else "",
    )


def _closing(text: str) -> int:
    """Where the bracket that opens a text is closed, past its end."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position + 1
    raise ValueError(f"a bracket is not closed: {text[:80]}")


def traffic(text: str) -> Traffic:
    """What the instructions of the entry computation move, and those of the loops in it.

    An instruction reads its operands and writes its results, each once and whole; what is in a
    memory on the chip costs nothing. A loop's body counts as often as XLA knows that it runs.
    """
    entry, found = computations(text)
    return _traffic(entry, found)


def _traffic(name: str, found: dict[str, list[Instruction]]) -> Traffic:
    results = {instruction.name: instruction.result for instruction in found[name]}
    moved = kernels = arrays = 0
    for instruction in found[name]:
        if instruction.is_free:
            continue
        inner = _body(instruction)
        if inner is not None:
            of_body = _traffic(inner, found)
            moved += instruction.trips * of_body.bytes
            kernels += instruction.trips * of_body.kernels
            arrays += instruction.trips * of_body.array_kernels
            continue
        operands = [shape for operand in instruction.operands for shape in results[operand]]
        touched = [*operands, *instruction.result]
        moved += (
            _copied(operands, instruction)
            if instruction.opcode in BACKGROUND
            else sum(shape.bytes for shape in touched if not shape.on_chip)
        )
        kernels += instruction.opcode not in BACKGROUND
        arrays += instruction.opcode not in BACKGROUND and not all(s.scalar for s in touched)
    return Traffic(moved, kernels, arrays)


def _body(instruction: Instruction) -> str | None:
    """The computation that an instruction runs step by step, where it does."""
    if instruction.opcode == "while":
        return instruction.called["body"]
    return instruction.called.get("to_apply") if instruction.opcode == "call" else None


def _copied(operands: list[Shape], instruction: Instruction) -> int:
    """What a copy in the background moves; its result also names its operands.

    The start of a copy gives (copy, operand, context), that of a slice ((operands), slice,
    context).
    """
    position = 0 if instruction.opcode == "copy-start" else len(operands)
    copy = instruction.result[position]
    from_memory = any(not shape.on_chip and not shape.scalar for shape in operands)
    return copy.bytes * (from_memory + (not copy.on_chip))


def collectives(text: str, *, but_of: str | None = None) -> dict[str, tuple[int, int]]:
    """How many collectives of each kind a program has, and their bytes on each device.

    Where ``but_of`` is given, only those count whose operation in JAX is known and does not have it
    in its name.
    The bytes are those of the larger side: of what an all-gather gives, of what a reduce-scatter
    takes. Collectives inside of fusions count as well.
    """
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for instructions in computations(text)[1].values():
        results = {instruction.name: instruction.result for instruction in instructions}
        for kind, instruction in _collectives(instructions):
            if but_of is not None and (not instruction.source or but_of in instruction.source):
                continue
            taken = sum(s.bytes for name in instruction.operands for s in results[name])
            given = sum(shape.bytes for shape in instruction.result)
            if instruction.opcode == "all-gather-start":  # it names its operands as well
                given -= taken
            number[kind] += 1
            size[kind] += max(taken, given)
    return {kind: (number[kind], size[kind]) for kind in sorted(number)}


def _collectives(instructions: list[Instruction]) -> Iterator[tuple[str, Instruction]]:
    for instruction in instructions:
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            yield kind, instruction
