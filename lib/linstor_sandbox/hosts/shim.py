"""What every tool of a host begins with: asking the sandbox.

It starts with every command on a host, so it imports next to nothing: no socket, no re, no pathlib.
"""

from __future__ import annotations

import _socket
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_ENDING = " \t\n'\")(;|&<>`,"
_BEFORE = _ENDING + "=:"
_VALUE_OPTIONS = "bcDEeFIiJLlmOopQRSWwB"
_KERNEL_DEVICES = (
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "shm",
    "ptmx",
    "pts",
    "stdin",
    "stdout",
    "stderr",
    "fd",
    "tty",
    "std",
)


def ask(port: int, path: str, *lines: str, seconds: float = 0) -> str:
    """POST lines to a private path of the sandbox; its answer, empty after so many seconds without one (0: waits).

    Exits 255 when there is no sandbox.
    """
    body = "\n".join(lines).encode("utf-8", "surrogateescape")
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.connect(("127.0.0.1", port))
        if seconds:
            connection.settimeout(seconds)
        connection.sendall(f"POST /sandbox/{path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        connection.sendall(body)
        answer = b""
        while True:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    except _socket.timeout:
        return ""
    except OSError as exc:
        sys.stderr.write(f"linstor_sandbox: the sandbox on port {port} does not answer: {exc}\n")
        os._exit(255)
    finally:
        connection.close()
    return answer.partition(b"\r\n\r\n")[2].decode("utf-8", "surrogateescape")


def kernel_device(name: str) -> bool:
    """Whether a name below /dev is the kernel's own, the same on every host."""
    first = name.split("/")[0]
    return first in _KERNEL_DEVICES or first.startswith(("tty", "std")) or first.endswith("random")


def _belongs_to_host(text: str, start: int, root: str) -> bool:
    """Whether a path of the host begins here: a device of its own, /var/lib/one or /var/tmp."""
    if text.startswith(root, start):
        return False
    if text.startswith("/dev/", start):
        end = start + 5
        while end < len(text) and text[end] not in _ENDING:
            end += 1
        return end > start + 5 and not kernel_device(text[start + 5 : end])
    for prefix in ("/var/lib/one", "/var/tmp"):
        after = start + len(prefix)
        if text.startswith(prefix, start) and (after == len(text) or text[after] in _ENDING + "/"):
            return True
    return False


def map_paths(command: str, host_root: str, root: str) -> str:
    """The command with the host's absolute paths below its root."""
    pieces = []
    position = 0
    while True:
        start = command.find("/", position)
        if start < 0:
            pieces.append(command[position:])
            return "".join(pieces)
        pieces.append(command[position:start])
        if (start == 0 or command[start - 1] in _BEFORE) and _belongs_to_host(command, start, root + "/"):
            pieces.append(host_root)
        end = start + 1
        while end < len(command) and command[end] not in _BEFORE:
            end += 1
        pieces.append(command[start:end])
        position = end


def _parse(arguments: list[str]) -> tuple[str, list[str], float]:
    """(host, command words, ConnectTimeout in seconds or 0) of an ssh command line."""
    index = 0
    seconds = 0.0
    while index < len(arguments):
        word = arguments[index]
        if word == "--":
            index += 1
            break
        if not word.startswith("-") or word == "-":
            break
        for option in (word, *arguments[index + 1 : index + 2]):
            if option.startswith("ConnectTimeout="):
                seconds = float(option.partition("=")[2])
        for place, letter in enumerate(word[1:], 1):
            if letter in _VALUE_OPTIONS:
                index += place == len(word) - 1
                break
        index += 1
    if index >= len(arguments):
        sys.stderr.write("usage: ssh [options] destination [command [argument ...]]\n")
        os._exit(255)
    host = arguments[index].replace("ssh://", "").rpartition("@")[2]
    rest = arguments[index + 1 :]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return host, rest, seconds


def environment(root: str, host_root: str, node: str) -> dict[str, str]:
    """A clean login's environment on a host."""
    home = host_root + "/var/lib/one"
    # A directory of tools that this machine lacks may be named for all hosts, with its ":" behind it.
    # So may commands that are put before the tools of one host: what they are is up to whoever does.
    path = (
        host_root
        + "/steps:"
        + host_root
        + "/bin:"
        + os.environ.get("LINSTOR_SANDBOX_PATH", "")
        + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    return {
        "PATH": path,
        "HOME": home,
        "USER": "oneadmin",
        "LOGNAME": "oneadmin",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "LINSTOR_SANDBOX_NODE": node,
        "LINSTOR_SANDBOX_ROOT": root,
    }


_REFUSALS = {
    "unknown": "Could not resolve hostname {}: Name or service not known",
    "offline": "connect to host {} port 22: No route to host",
    "refused": "connect to host {} port 22: Connection refused",
    "exit": "Connection closed by {} port 22",
    "": "connect to host {} port 22: Connection timed out",
}


def ssh(root: str, port: int) -> NoReturn:
    """ssh [options] [user@]host [command...]."""
    host, words, seconds = _parse(sys.argv[1:])
    command = " ".join(words)
    answer = ask(port, "ssh", host, command, seconds=seconds).split("\n")
    if answer[0] in _REFUSALS:
        sys.stderr.write("ssh: " + _REFUSALS[answer[0]].format(host) + "\n")
        os._exit(255)
    node = answer[1]
    host_root = root + "/hosts/" + node
    here = os.environ.get("LINSTOR_SANDBOX_NODE")
    if here:
        command = command.replace(root + "/hosts/" + here + "/", "/")
    env = environment(root, host_root, node)
    os.chdir(env["HOME"])
    restore_signals()
    if answer[2:]:
        import dying  # type: ignore[import-not-found]

        script = ["-c", map_paths(command, host_root, root)] if words else []
        dying.run(["/bin/sh", *script], env, int(answer[2]))
    if words:
        os.execve("/bin/sh", ["sh", "-c", map_paths(command, host_root, root)], env)
    os.execve("/bin/sh", ["sh"], env)


def restore_signals() -> None:
    """Python ignores SIGPIPE; what it executes should not."""
    import _signal  # type: ignore[import-not-found]

    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)


def watched(command: str, node: str, here: str, port: int) -> NoReturn:
    """A command of which the sandbox wants to know before it runs, found in the directory `here`."""
    import _signal

    # Meanwhile it is like one that waits for a device: whoever wants its end gets it when that answers.
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTERM])
    said = ask(port, "step", node, command, str(os.getpid()))
    _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    if said == "fail":
        sys.stderr.write(command + ": injected failure\n")
        os._exit(1)
    restore_signals()
    for directory in os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        if directory != here and os.access(directory + "/" + command, os.X_OK):
            os.execv(directory + "/" + command, [command, *sys.argv[1:]])
    sys.stderr.write("sh: " + command + ": not found\n")
    os._exit(127)
