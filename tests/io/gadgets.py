"""Pickles that would run code, in every way that pickle offers; run as a script it opens them all and watches.

`python tests/io/gadgets.py FOLDER` exits with 0 if each is refused with one of our errors and nothing of it ran.
"""

import io
import pickle
import struct
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

CANARY = "latentdiff-canary"

# Callables that run code, load code, or reach further ones, with the arguments that an attacker would give.
CALLS = {
    "os.system": (f"touch {CANARY}",),
    "posix.system": (f"touch {CANARY}",),
    "nt.system": (f"touch {CANARY}",),
    "os.popen": (f"touch {CANARY}",),
    "os.execv": ("/bin/touch", ["touch", CANARY]),
    "os.spawnlp": (0, "touch", "touch", CANARY),
    "os.remove": ("model.ckpt",),
    "pty.spawn": ("/bin/sh",),
    "subprocess.Popen": (["touch", CANARY],),
    "subprocess.run": (["touch", CANARY],),
    "subprocess.check_output": (["touch", CANARY],),
    "subprocess.getoutput": (f"touch {CANARY}",),
    "commands.getoutput": (f"touch {CANARY}",),
    "builtins.eval": (f"open('{CANARY}', 'w')",),
    "builtins.exec": (f"open('{CANARY}', 'w')",),
    "__builtin__.eval": (f"open('{CANARY}', 'w')",),
    "__builtin__.apply": (print, ()),
    "__builtin__.execfile": ("/dev/null",),
    "builtins.compile": ("1", "x", "eval"),
    "builtins.open": (CANARY, "w"),
    "io.open": (CANARY, "w"),
    "_io.FileIO": (CANARY, "w"),
    "pathlib.Path.touch": (CANARY,),
    "builtins.__import__": ("antigravity",),
    "builtins.getattr": ("os", "system"),
    "builtins.setattr": ("os", "system", None),
    "builtins.globals": (),
    "builtins.breakpoint": (),
    "builtins.input": (),
    "builtins.bytearray": (2**40,),
    "builtins.range": (2**40,),
    "builtins.type": ("X", (), {}),
    "importlib.import_module": ("antigravity",),
    "importlib.reload": ("os",),
    "imp.load_source": ("x", "/dev/null"),
    "runpy.run_path": ("/dev/null",),
    "runpy._run_code": ("1", {}),
    "code.InteractiveInterpreter": (),
    "timeit.timeit": (f"open('{CANARY}', 'w')",),
    "cProfile.run": (f"open('{CANARY}', 'w')",),
    "profile.run": ("1",),
    "trace.Trace": (),
    "pdb.run": ("1",),
    "doctest.testmod": (),
    "functools.partial": (print, "x"),
    "functools.reduce": (print, [1, 2]),
    "operator.attrgetter": ("system",),
    "operator.methodcaller": ("system", "x"),
    "types.FunctionType": (),
    "types.CodeType": (),
    "marshal.loads": (b"x",),
    "pickle.loads": (b"cos\nsystem\n.",),
    "_pickle.loads": (b"cos\nsystem\n.",),
    "dill.loads": (b"x",),
    "cloudpickle.loads": (b"x",),
    "joblib.load": ("x",),
    "shelve.open": (CANARY,),
    "numpy.load": ("x.npy", None, True),
    "numpy.f2py.crackfortran.getlincoef": ("1", {}),
    "numpy.testing._private.utils.runstring": ("1", {}),
    "torch.load": ("x",),
    "torch.hub.load": ("evil/repo", "model"),
    "torch.jit.load": ("x",),
    "torch.utils.cpp_extension.load": ("x", []),
    "torch._utils._import_dotted_name": ("os.system",),
    "torch._utils._rebuild_wrapper_subclass": (),
    "torch._tensor._rebuild_from_type_v2": (print, print, (), {}),
    "torch.storage._load_from_bytes": (b"x",),
    "torch.serialization._get_layout": ("os.system",),
    "torch.distributed.rpc.functions.async_execution": (print,),
    "torch.fx.graph_module.reduce_graph_module": ({}, "import os"),
    "ctypes.CDLL": ("libc.so.6",),
    "webbrowser.open": ("http://127.0.0.1:9",),
    "socket.create_connection": (("127.0.0.1", 9),),
    "urllib.request.urlopen": ("http://127.0.0.1:9",),
    "shutil.rmtree": ("/nowhere",),
    "signal.raise_signal": (9,),
    "sys.exit": (),
    "threading.Thread": (),
    "multiprocessing.Process": (),
    "asyncio.create_subprocess_shell": ("x",),
    "codecs.decode": ("x", "rot13"),
    "logging.config.dictConfig": ({},),
    "pip.main": (["install", "x"],),
    "idlelib.pyshell.ModifiedInterpreter": (),
    "pkgutil.resolve_name": ("os:system",),
    "bdb.Bdb.run": ("1",),
    "ensurepip.bootstrap": (),
    "PIL.ImageMath.eval": ("1",),
    "latentdiff.cli.main.main": (["train"],),
    # Those for which inert classes stand in, which must not reach what the names say.
    "main.os.system": (f"touch {CANARY}",),
    "pytorch_lightning.utilities.cloud_io.torch.load": ("x",),
    "omegaconf._utils.yaml.unsafe_load": (f"!!python/object/apply:os.system ['touch {CANARY}']",),
    "ldm.util.instantiate_from_config": ({"target": "os.system", "params": {"command": f"touch {CANARY}"}},),
    "pathlib.PosixPath": (CANARY,),
    "collections.defaultdict": (print,),
    "__builtin__.dict": ([["a", 1]],),
    "__builtin__.list": ("x" * 1000,),
}


def dumped(value):
    """The operations of plain values, without protocol and stop."""
    if callable(value):
        return b"cbuiltins\nprint\n"
    data = pickle.dumps(value, protocol=2)
    return data[2:-1]


def split(name):
    module, _, attribute = name.rpartition(".")
    return module.encode(), attribute.encode()


def reduce_(name, arguments):
    module, attribute = split(name)
    return b"\x80\x02c%s\n%s\n(" % (module, attribute) + b"".join(map(dumped, arguments)) + b"tR."


def inst(name, arguments):
    module, attribute = split(name)
    return b"(" + b"".join(map(dumped, arguments)) + b"i%s\n%s\n." % (module, attribute)


def obj(name, arguments):
    module, attribute = split(name)
    return b"\x80\x02(c%s\n%s\n" % (module, attribute) + b"".join(map(dumped, arguments)) + b"o."


def newobj(name, arguments):
    module, attribute = split(name)
    return b"\x80\x02c%s\n%s\n(" % (module, attribute) + b"".join(map(dumped, arguments)) + b"t\x81."


def newobj_ex(name, arguments):
    module, attribute = split(name)
    return b"\x80\x04c%s\n%s\n(" % (module, attribute) + b"".join(map(dumped, arguments)) + b"t}\x92."


def stack_global(name, arguments):
    module, attribute = (b"\x8c%c%s" % (len(part), part) for part in split(name))
    return b"\x80\x04" + module + attribute + b"\x93(" + b"".join(map(dumped, arguments)) + b"tR."


def build(name, arguments):
    module, attribute = split(name)
    return (
        b"\x80\x02c%s\n%s\n" % (module, attribute) + dumped({"__setstate__": 1, "a": list(map(str, arguments))}) + b"b."
    )


def hidden(name, arguments):
    """Beside a state dict, as the value of a callback."""
    return b"\x80\x02}(X\x0a\x00\x00\x00state_dict}X\x09\x00\x00\x00callbacks" + reduce_(name, arguments)[2:-1] + b"u."


def nested(name, arguments):
    """A reducer of torch around the gadget."""
    inner = reduce_(name, arguments)[2:-1]
    return b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + inner + b"\x88ccollections\nOrderedDict\n)RtR."


FORMS = (reduce_, inst, obj, newobj, newobj_ex, stack_global, build, hidden, nested)
# Values that hold one another: of a depth that ends a program when hashed, or doubled until no machine can count them.
DEEP = b")" + b"\x85" * 160_000
PAIRS = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(99))
LISTS = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(99))
OTHERS = {
    "extension": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x00.",
    "persistent text": b"Pos.system\n.",
    "persistent": b"\x80\x02X\x09\x00\x00\x00os.systemQ.",
    "buffer": b"\x80\x05\x97.",
    "endless memo": b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 1000 + b".",
    "deep key": b"\x80\x02}" + DEEP + b"Ns.",
    "deep element": b"\x80\x02c__builtin__\nset\n](" + DEEP + b"e\x85R.",
    "deep storage": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + DEEP + b"X\x03\x00\x00\x00cpuK\x01tQ.",
    "doubled key": b"\x80\x02" + PAIRS + b"}h\x63Ns.",
    "doubled element": b"\x80\x02" + PAIRS + b"c__builtin__\nset\n](h\x63e\x85R.",
    "doubled function": b"\x80\x02" + LISTS + b")R.",
    "doubled class": b"\x80\x02" + LISTS + b")\x81.",
    "one argument often": b"\x80\x02]("
    + b"N" * 90_000
    + b"eq\x00c__builtin__\nset\nq\x01"
    + b"h\x01h\x00\x85R" * 90_000
    + b".",
    "endless lists": b"\x80\x02" + b"]" * 5_000_000 + b".",
    "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "long string": b"\x80\x02X\xff\xff\xff\x7fx.",
    "huge number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "nothing": b".",
    "no stop": b"\x80\x02}",
}


def zipped(content, name="archive/data.pkl", compression=zipfile.ZIP_STORED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        archive.writestr(name, content)
        archive.writestr("archive/version", "3\n")
    return data.getvalue()


def legacy(content):
    """A file of torch before 1.6 with the gadget as its content."""
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    return magic + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2) + content + pickle.dumps([], 2)


def tarred(content):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def corpus():
    """Name and bytes of every hostile file."""
    for index, (name, arguments) in enumerate(CALLS.items()):
        for form in FORMS:
            yield f"{form.__name__} {name} zip", zipped(form(name, arguments))
        form = FORMS[index % len(FORMS)]
        yield f"{form.__name__} {name} legacy", legacy(form(name, arguments))
        yield f"{name} raw", reduce_(name, arguments)
    for name, content in OTHERS.items():
        yield f"{name} zip", zipped(content)
        if len(content) < 10_000:  # the same unpickler reads both, and takes half a second for a longer one
            yield f"{name} legacy", legacy(content)
    gadget = reduce_("os.system", CALLS["os.system"])
    yield "tar", tarred(gadget)
    yield "zip in zip", zipped(zipped(gadget))
    yield "bomb", zipped(b"\0" * 50_000_000, compression=zipfile.ZIP_DEFLATED)
    yield "torchscript", zipped(gadget, "archive/constants.pkl")
    yield "two contents", zipped(gadget) + zipped(gadget, "other/data.pkl")
    yield "outside", zipped(gadget, "../../data.pkl")
    yield "pickle in safetensors", struct.pack("<Q", len(gadget)) + gadget


def main(folder):
    """Open everything under an audit hook."""
    from latentdiff.errors import CheckpointError
    from latentdiff.io.tensor_files import open_tensors

    path = Path(folder) / "model.ckpt"
    import torch

    for form in (True, False):  # imports what torch and zipfile import lazily
        torch.save({"warm": torch.ones(1)}, path, _use_new_zipfile_serialization=form)
        open_tensors(path)
    path.write_bytes(zipped(b"\x80\x02}."))
    with suppress(CheckpointError):
        open_tensors(path)
    seen = []
    state = {"watching": False}

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        runs = event in (
            "exec",
            "os.system",
            "subprocess.Popen",
            "os.exec",
            "os.posix_spawn",
            "os.spawn",
            "ctypes.dlopen",
        )
        if state["watching"] and (writes or runs or event.startswith(("socket", "os.remove", "shutil", "urllib"))):
            seen.append((event, str(arguments)[:100]))

    sys.addaudithook(hook)
    count, loaded = 0, []
    for name, content in corpus():
        path.write_bytes(content)
        state["watching"] = True
        try:
            open_tensors(path)
            loaded.append(name)
        except CheckpointError as error:
            assert "\n" not in str(error), name
        state["watching"] = False
        count += 1
    state["watching"] = True  # the watch itself works: the plain unpickler would have opened the canary
    noticed = len(seen)
    pickle.loads(reduce_("io.open", (str(path.with_name("control")), "w")))
    state["watching"] = False
    control = seen[noticed:]
    del seen[noticed:]
    assert control, "the watch sees nothing"
    print(f"{count} files, {len(loaded)} opened {loaded[:5]}, {len(seen)} events {seen[:5]}")
    return bool(loaded or seen or Path(CANARY).exists())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
