"""Reads TorchScript archives, which hold a program: it is read as text first, and run only if all it does is paint.

torch.jit.load runs `__setstate__` methods, and a program may call any operator, those that read and write files
included. So every name that is called must be on the list of operators or defined in the archive itself. PyTorch's
loader gets a copy of what was read here, and nothing else that the archive may hold.
"""

from __future__ import annotations

import io
import keyword
import pickletools
import re
import tokenize
import warnings
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.files import METADATA_KEY, first_line, parse_metadata, read_entry, repacked
from sketchbridge_export.sources.operators import is_pure
from sketchbridge_export.sources.probing import OWN_GRAPH, Probe, choose_reading, probe, take_state_dict
from sketchbridge_export.sources.source import TORCHSCRIPT, Checkpoint, ReadyNetwork
from sketchbridge_export.sources.storages import check_storages
from sketchbridge_export.sources.torchscript_graph import rebuild_program

_LARGEST_CODE_BYTES = 1024**2  # a U-Net-256 has 30 kB
_LONGEST_STATEMENT = 1_000  # words and signs; what PyTorch writes has 90, and its parser dies of 3,000 brackets
_LARGEST_PICKLE_BYTES = 2 * 1024**2  # a U-Net-256 has 20 kB
_PICKLES = {"data.pkl": "data/", "constants.pkl": "constants/"}  # and the folder of their storages
# Without what a network does not need: where its code comes from, what it was traced with.
_LOADED = re.compile(r"code/[\w/]+\.py|(data|constants)\.pkl|(data|constants)/[0-9]+|version|byteorder")
# What the language has beside operators: casts, checks, and lengths.
_LANGUAGE = frozenset(
    """
    annotate unchecked_cast uninitialized isinstance getattr int float bool str list len range rangelist
    format warn RaiseException device Int Float Bool IntImplicit FloatImplicit ScalarImplicit BoolImplicit NumToTensor
    __range_length __derive_index __getitem__ __is__ __isnot__ __not__ __contains__ is_floating_point is_cuda dtype
    append len ne eq lt gt le ge floordiv ceildiv min max tensor super
    """.split()  # noqa: SIM905 - a list of quoted words reads worse
)
_ROOTS = ("torch", "ops")
_NAMESPACES = ("aten", "prim")
_FORBIDDEN = {
    "while": "an endless loop",
    "fork": "another thread",
    "__setstate__": "code when it is loaded",
    "__getstate__": "code when it is saved",
    "classes": "compiled code",
}
_GLOBALS = re.compile(
    r"__torch__\.(?!torch\.classes)[\w.]+|collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|"
    r"torch\.jit\._pickle (build_\w+|restore_type_tag)|torch (\w+Storage|device)"
)


def read_torchscript(
    path: Path, file: IO[bytes], sha256: str, names: Mapping[str, zipfile.ZipInfo], *, weights_first: bool
) -> Checkpoint | ReadyNetwork:
    """The network in `file`: its own graph, or, with `weights_first`, rebuilt by the family that knows its weights.

    The second is also done where the first is impossible. Raises CheckpointInvalid if it is damaged, does anything but
    compute, or doesn't turn a picture into a picture.
    """
    loaded = {name: entry for name, entry in names.items() if _LOADED.fullmatch(name)}
    with zipfile.ZipFile(file) as archive:
        code = [name for name in loaded if name.startswith("code/")]
        if sum(names[name].file_size for name in code) > _LARGEST_CODE_BYTES:
            raise CheckpointInvalid(f"`{path}` has more than {_LARGEST_CODE_BYTES:,} bytes of program.")
        _check_code(path, [read_entry(path, archive, names[name]) for name in code])
        for name, folder in _PICKLES.items():
            if name not in loaded:
                raise CheckpointInvalid(f"`{path}` is damaged: `{name}` is missing. Copy it again.")
            if names[name].file_size > _LARGEST_PICKLE_BYTES:
                raise CheckpointInvalid(f"`{path}` is damaged: `{name}` has {names[name].file_size:,} bytes.")
            content = read_entry(path, archive, names[name])
            sizes = {key.removeprefix(folder): names[key].file_size for key in loaded if key.startswith(folder)}
            check_storages(path, content, sizes)
            _check_pickle(path, name, content)
        extra = names.get(f"extra/{METADATA_KEY}")
        text = None if extra is None else read_entry(path, archive, extra).decode(errors="replace")
        metadata = parse_metadata(path, text)
        copy = repacked(path, archive, loaded)  # also: the loader is C++ and trusts what it reads
    try:
        with copy, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is on its way out, says PyTorch
            module = torch.jit.load(copy, map_location="cpu").eval()  # type: ignore[no-untyped-call]
            state_dict = module.state_dict()
            frozen = torch.jit.freeze(module, optimize_numerics=False).inlined_graph
    except Exception as exc:
        raise CheckpointInvalid(
            f"`{path}` can't be loaded as TorchScript: {type(exc).__name__}: {_reason(exc)}."
        ) from exc

    def own_graph() -> ReadyNetwork:
        network = rebuild_program(frozen)
        return _ready(path, sha256, metadata, network, module)

    return choose_reading(
        own_graph,
        lambda note: take_state_dict(path, sha256, state_dict, metadata, TORCHSCRIPT, note),
        weights_first=weights_first,
    )


def _ready(
    path: Path, sha256: str, metadata: Mapping[str, Any], network: nn.Module, module: torch.jit.ScriptModule
) -> ReadyNetwork:
    found = probe(path, network, Probe())
    return ReadyNetwork(
        path=path,
        sha256=sha256,
        format=TORCHSCRIPT,
        metadata=metadata,
        notes=(OWN_GRAPH,),
        network=network,
        runtime=module,
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=found.native_size,
    )


def _check_code(path: Path, sources: list[bytes]) -> None:
    """Raise CheckpointInvalid unless every name that is called is an operator on the list or defined in the archive."""
    words = [word for source in sources for word in _words(path, source)]
    defined = {name for word, name in pairwise(words) if word in ("def", "class")}
    # A method of a tensor is an operator, so a name that is an operator too means the operator.
    allowed = _LANGUAGE | {name for name in defined if not hasattr(torch.ops.aten, name)}
    roots: list[str] = []  # of each word, the first name of the dotted one it is in: `torch` of `torch.nn.relu`
    for index, word in enumerate(words):
        after = words[index + 1 : index + 6]
        dotted = index >= 2 and words[index - 1] == "." and words[index - 2].isidentifier()
        root = roots[index - 2] if dotted else word
        roots.append(root)
        if word in _FORBIDDEN:
            raise _refused(path, f"holds {_FORBIDDEN[word]}, `{word}`")
        if root == "__torch__":  # the archive's own
            continue
        if word == "getattr" and not _names_a_part(after):
            raise _refused(path, f"uses `getattr` on `{''.join(after)[:60]}`")
        if word in _ROOTS and root == word and after[:1] != ["."]:
            raise _refused(path, f"passes `{word}` on under another name")
        if root == "ops" and word != "ops":
            namespace, name = (words[index - 2], word) if words[index - 2] != "ops" else (word, (*after, "", "")[1])
            if namespace not in _NAMESPACES or not _is_known(name, _LANGUAGE):
                raise _refused(path, f"calls `{namespace[:40]}::{name[:60]}`")
        elif root == "torch" and word != "torch" and not _is_known(word, _LANGUAGE):
            raise _refused(path, f"calls `aten::{word[:60]}`")
        elif words[index - 1 : index] == ["."] and not _is_known(word, allowed) and hasattr(torch.ops.aten, word):
            raise _refused(path, f"uses `{word[:60]}`")
        elif after[:1] == ["("] and _is_name(word) and not _is_known(word, allowed) and words[index - 1] != "def":
            raise _refused(path, f"calls `{word[:60]}`")


def _names_a_part(after: list[str]) -> bool:
    """Whether `getattr` takes a part of a module whose name is no identifier, which is what it is there for."""
    if len(after) < 5 or after[0] != "(" or after[1] in _ROOTS or after[2] != ",":
        return False
    return re.fullmatch(r"\"\d+\"", after[3]) is not None and after[4] == ")"


def _is_name(word: str) -> bool:
    """Whether it can name an operator. `_0` is a local name; what it stands for is looked at where that is named."""
    return word.isidentifier() and not keyword.iskeyword(word) and not re.fullmatch(r"_\d+", word)


def _is_known(name: str, others: frozenset[str] | set[str]) -> bool:
    return name in others or is_pure(name)


def _refused(path: Path, does: str) -> CheckpointInvalid:
    return CheckpointInvalid(
        f"The program in `{path}` {does}; only operators that paint are let through, so it was not run. Save the "
        "generator's state_dict."
    )


def _words(path: Path, source: bytes) -> list[str]:
    if b"\0" in source:  # a run of them takes the tokenizer minutes
        raise CheckpointInvalid(f"`{path}` is damaged: its program can't be read. Copy it again.")
    try:
        # TorchScript is ASCII whatever its first line says: Python would obey `# coding: utf-16` and read other words.
        tokens = list(tokenize.generate_tokens(io.StringIO(source.decode("ascii")).readline))
    except (tokenize.TokenError, SyntaxError, ValueError) as exc:
        raise CheckpointInvalid(f"`{path}` is damaged: its program can't be read. Copy it again.") from exc
    length = 0
    for token in tokens:
        length = 0 if token.type == tokenize.NEWLINE else length + 1
        if length > _LONGEST_STATEMENT:
            raise _refused(path, f"has a statement of more than {_LONGEST_STATEMENT:,} words")
    return [token.string for token in tokens if token.type in (tokenize.NAME, tokenize.OP, tokenize.STRING)]


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    """Raise CheckpointInvalid unless it is sound and names only tensors and the archive's classes."""
    try:
        steps = [(opcode.name, str(argument)) for opcode, argument, _ in pickletools.genops(content)]
        pickletools.dis(content, out=_Nowhere())
    except Exception as exc:  # a broken pickle fails in any way
        raise CheckpointInvalid(f"`{path}` is damaged at `{name}`: {first_line(exc)}. Copy it again.") from exc
    for step, argument in steps:
        named = step == "GLOBAL" and not _GLOBALS.fullmatch(_as_written(argument))
        if named or step in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise _refused(path, f"holds an object, `{argument[:80]}`")


def _as_written(name: str) -> str:
    """`module name`, and a class of the archive with dots throughout, as in its code."""
    return name.replace(" ", ".") if name.startswith("__torch__") else name


class _Nowhere(io.StringIO):
    def write(self, text: str, /) -> int:
        return len(text)


def _reason(exc: Exception) -> str:
    lines = [line for line in str(exc).strip().splitlines() if line.strip()]
    chosen = next((line for line in reversed(lines) if "Error:" in line), lines[0] if lines else "no reason given")
    return first_line(Exception(chosen))
