"""Damages of data files that know the format: IDX headers, members of zips, arrays, pickles, archives, pictures."""

import functools
import gzip
import io
import struct
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from .guard import Place
from .hostile import OfBytes, of_bytes

NUMBERS = (0, 1, 2, 27, 28, 255, 256, 60_000, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
MEMBERS = (
    *("../../outside/new", "/tmp/new", "a\\..\\b", "x\n\x1b[2J.npy", "train_images.npy", "", "images/", "a" * 60_000),
)
_BOMB = 2**26  # bytes that a bomb unpacks to


@functools.cache
def bomb() -> bytes:
    return gzip.compress(bytes(_BOMB), mtime=0)


@dataclass(frozen=True)
class InIdx:
    """Numbers in the header of an IDX file are others, or it unpacks to very much."""

    words: list[tuple[int, int]]
    explodes: bool

    def __call__(self, path: Path, place: Place) -> None:
        packed = path.suffix == ".gz"
        content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
        for position, number in self.words:
            place_of_word = 4 * (position % 4)
            content[place_of_word : place_of_word + 4] = struct.pack(">I", number)
        whole = gzip.compress(bytes(content), mtime=0) if packed else bytes(content)
        path.write_bytes(whole + bomb() if packed and self.explodes else whole)


@dataclass(frozen=True)
class InZip:
    """Members of a zip are others; sizes in it may be wrong."""

    how: str
    where: int
    name: str
    change: OfBytes

    def __call__(self, path: Path, place: Place) -> None:
        with zipfile.ZipFile(path) as source:
            members = [(name, source.read(name)) for name in source.namelist()]
        name, content = members[self.where % len(members)]
        new: list[tuple[str, bytes]] = []
        match self.how:
            case "rename":
                new = [(self.name, content)]
            case "drop":
                pass
            case "twice":
                new = [(name, content), (name, content)]
            case "change":
                new = [(name, self.change.apply(content))]
            case "explode":
                new = [(name, bytes(_BOMB))]
            case "more":
                new = [(name, content), (self.name, content)]
            case _:
                new = [(name, content)]
        at = self.where % len(members)
        members[at : at + 1] = new
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            warnings.simplefilter("ignore")  # of names that are there twice
            for each, data in members:
                target.writestr(zipfile.ZipInfo(each or "x"), data, zipfile.ZIP_DEFLATED)
        if self.how == "lie":
            whole = bytearray(path.read_bytes())
            end = whole.rfind(b"PK\x01\x02")
            start = [whole.find(b"PK\x01\x02"), end][self.where % 2]
            field = [8, 10, 20, 24, 28, 34, 42][len(self.change.put) % 7]  # flags, method, sizes, lengths, place
            whole[start + field : start + field + 2] = struct.pack("<H", NUMBERS[self.where % len(NUMBERS)] % 2**16)
            path.write_bytes(whole)


HEADERS = (
    "{'descr': '|O', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': ()}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904, 4), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (6, 0, 99999999999999999999), }",
    "{'descr': '|V1000000000', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': [('a', '|u1'), ('b', '|O')], 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '>i8', 'fortran_order': False, 'shape': (6, ), }",
    "{'descr': '|u1', 'fortran_order': 0, 'shape': (True, 28, 28), }",
    "__import__('os').system('true')",
    *("(" * 5000, "[" * 300 + "]" * 300, "9" * 5000, "-" * 3000 + "1", "{}", "", "\0", "{'descr': '|u1'}"),
)


@dataclass(frozen=True)
class InArray:
    """The header of an array in an .npz file is another one."""

    where: int
    header: str
    version: tuple[int, int]

    def __call__(self, path: Path, place: Place) -> None:
        with zipfile.ZipFile(path) as source:
            members = {name: source.read(name) for name in source.namelist()}
        name = sorted(members)[self.where % len(members)]
        text = self.header.encode() + b"\n"
        length = struct.pack("<H" if self.version == (1, 0) else "<I", len(text))
        members[name] = b"\x93NUMPY" + bytes(self.version) + length + text + members[name][-4000:]
        with zipfile.ZipFile(path, "w") as target:
            for each, content in members.items():
                target.writestr(each, content)


OPCODES = (
    *(b"cos\nsystem\n(S'true'\ntR", b"cfuzz_payload\nrun\n)R", b"cbuiltins\neval\n(S'1'\ntR"),
    *(
        b"csubprocess\nPopen\n)\x81",
        b"i__builtin__\nexec\n",
        b"\x8c\x02os\x8c\x06system\x93",
        b"Q",
        b"P1\n",
        b"\x82\x01",
    ),
    *(b"b", b"R", b"o", b"0", b"1", b".", b"N", b"\x94", b"h\xff", b"\x80\xff", b"}(U\x01aK\x01u"),
    *(b"\x8b\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"B\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f"),
    *(b"I" + b"9" * 5000 + b"\n", b"(" * 3000, b"]" * 3000 + b"a" * 2999, b"2" * 3000),
)


@dataclass(frozen=True)
class InPickle:
    """Instructions are put into a pickle."""

    opcode: bytes
    start: float

    def __call__(self, path: Path, place: Place) -> None:
        content = path.read_bytes()
        at = 2 + int(self.start * 200) % max(1, len(content) - 2)
        path.write_bytes(content[:at] + self.opcode + content[at:])


@dataclass(frozen=True)
class InTar:
    """A member of an archive is another one, or is no file."""

    name: str
    kind: bytes
    target: str
    explodes: bool

    def __call__(self, path: Path, place: Place) -> None:
        content = io.BytesIO()
        with tarfile.open(path) as source, tarfile.open(fileobj=content, mode="w:gz") as target:
            extra = tarfile.TarInfo(self.name)
            extra.type, extra.linkname = self.kind, self.target
            extra.size = _BOMB if self.explodes and self.kind == tarfile.REGTYPE else 0
            target.addfile(extra, io.BytesIO(bytes(extra.size)))
            for member in source:
                if member.name != self.name:
                    target.addfile(member, source.extractfile(member))
        path.write_bytes(content.getvalue())


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))
    end = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + end


PICTURES = {
    "a huge PNG": _png(60_000, 60_000),
    "a PNG without an end": _png(2**31 - 1, 2**31 - 1),
    "a thin PNG": _png(1, 60_000_000),
    "an empty PNG": _png(0, 0),
    "a GIF": b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(800) + b",\0\0\0\0\xff\xff\xff\xff\0\x08\x01\0\0;",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(%pipe%true) (r) file\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "TIFF": b"II*\0\x08\0\0\0\x02\0\0\x01\x03\0\x01\0\0\0\xff\xff\0\0\x01\x01\x03\0\x01\0\0\0\xff\xff\0\0\0\0\0\0",
    "PPM": b"P6\n99999 99999\n255\n",
    "FITS": b"SIMPLE  =                    T" + bytes(3000),
    "BMP": b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + struct.pack("<iiHHI", 2**30, -(2**30), 1, 24, 0) + bytes(24),
    "JPEG": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01" + bytes(50),
    "text": b"not a picture",
}


@dataclass(frozen=True)
class OtherPicture:
    """Another picture lies in a picture's place."""

    name: str

    def __call__(self, path: Path, place: Place) -> None:
        path.write_bytes(PICTURES[self.name])


in_idx = st.builds(
    InIdx, st.lists(st.tuples(st.integers(0, 3), st.sampled_from(NUMBERS)), max_size=3), st.integers(0, 3).map(bool)
)
in_zip = st.builds(
    InZip,
    st.sampled_from(["rename", "drop", "twice", "change", "change", "explode", "more", "lie", "lie"]),
    st.integers(0, 999),
    st.sampled_from(MEMBERS),
    of_bytes,
)
in_array = st.builds(
    InArray, st.integers(0, 9), st.sampled_from(HEADERS), st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)])
)
in_pickle = st.builds(InPickle, st.sampled_from(OPCODES), st.floats(0, 1))
in_tar = st.builds(
    InTar,
    st.sampled_from(
        ["cifar-10-batches-py/data_batch_1", "../../outside/new", "/etc/passwd", "cifar-10-batches-py", "x\x1b[2J"]
    ),
    st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]),
    st.sampled_from(["../../outside/secret", "/dev/zero", "cifar-10-batches-py/data_batch_1", ""]),
    st.booleans(),
)
other_picture = st.sampled_from(sorted(PICTURES)).map(OtherPicture)
