"""
Starts the program on the cluster only from a place where nobody else can have put it.

Whoever can write to a folder on the way to the program could put another one there before us, and it would run as the
job's user. This is a text of Python, since the cluster gets it with each command, before anything there is trusted. Its
default Python, of any version, runs it, so it must parse there: no annotations, no f-strings.
"""

from __future__ import annotations

from airflow_provider_gpu_cluster.gpu_run import protocol

# It has none of these: "!", which csh would replace; single quotes and backslashes, which fish reads in its own way.
_TEXT = """
import os, sys
def refuse(path, why):
    hint = "; or set root_dir in the connection to a folder of your own, in which nobody else can write"
    sys.stderr.write(path + " " + why + hint + chr(10))
    sys.exit(EXIT_PROGRAM_UNSAFE)
def name(uid):
    try:
        import pwd
        return pwd.getpwuid(uid).pw_name
    except Exception:
        return str(uid)
def check_owner(path, owner, allowed):
    if owner not in allowed:
        nfs = " (on NFS, the owner nobody means that user ids are not mapped)" if owner == 65534 else ""
        refuse(path, "belongs to " + name(owner) + ", not to " + name(me) + nfs + ": remove it if you may")
def check_folder(path, mode, entry):
    if mode & 0o1000 and mode & 0o022:
        check_owner(entry, os.lstat(entry).st_uid, (me, 0))
    elif mode & 0o002:
        risk = "can be written to by everybody, who could replace " + os.path.basename(entry)
        refuse(path, risk + ": have its owner run chmod o-w on it")
def check_way(path):
    # Below a folder that only its owner can enter, nobody else can reach any.
    parts, at, links, closed = path.split("/"), "/", 0, False
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at, closed = os.path.dirname(at), False
            continue
        found = os.stat(at)
        entry = os.path.join(at, part)
        closed = closed or (found.st_uid in (me, 0) and not found.st_mode & 0o011)
        if not closed or at == root:
            check_folder(at, found.st_mode, entry)
        if os.path.islink(entry) and links < 40:
            links += 1
            target = os.readlink(entry)
            parts = target.split("/") + parts
            at, closed = ("/", False) if target[:1] == "/" else (at, closed)
        else:
            at = entry
program = os.path.abspath(sys.argv[1])
folder = os.path.dirname(program)
me = os.geteuid()
root = os.path.realpath(os.path.dirname(folder))
check_way(program)
check_owner(root, os.stat(root).st_uid, (me, 0))
for path in (folder, program, os.path.splitext(program)[0]):
    if os.path.exists(path):
        found = os.stat(path)
        check_owner(path, found.st_uid, (me,))
        if found.st_mode & 0o022:
            refuse(path, "can be written to by others: if you trust what is in it, run chmod go-w on it")
sys.argv = sys.argv[1:]
sys.path.insert(0, program)
import zipimport
try:
    code = zipimport.zipimporter(program).get_code("__main__")
except zipimport.ZipImportError:
    # As Python itself does.
    code = compile(open(program).read(), program, "exec")
exec(code, {"__name__": "__main__", "__file__": program})
"""
# One line for any login shell.
SAFE_START = "exec({!r})".format(_TEXT.strip().replace("EXIT_PROGRAM_UNSAFE", str(protocol.EXIT_PROGRAM_UNSAFE)))
