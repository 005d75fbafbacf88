# SPDX-License-Identifier: Apache-2.0
"""The exchanges of wire.md section 14 as a table that any implementation of the JSON protocol can be put through.

An exchange is a function from a `Talk` to lines that say what happened: `ok VALUE +1fd`, `err CLASS`, the name of a
content, `exit 0`. The expected lines are those of this program; tests/interop lists where another one says otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of
from tests.support import images
from tests.support.jsonparent import JsonParent, Reply, close_all, has_nothing, read_exactly, read_to_end
from tests.support.parent import PATIENCE
from tests.support.registry import (
    NAME,
    FaultyHost,
    Strike,
    at,
    chunked,
    make_content,
    refusing_port,
    registry_of,
    status,
)

REGISTRY_LAYER = 200_000  # bytes


class Places:
    """The images that the exchanges are about, below a directory and behind a registry on 127.0.0.1."""

    def __init__(self, directory: Path, host: FaultyHost, refusing: int) -> None:
        self.directory = directory
        self.host = host
        self.refusing = refusing
        images.f1(directory / "F1")
        images.f2(directory / "F2")
        self.big = images.big(directory / "BIG")
        self.bad = images.bad(directory / "BAD")
        for count in (400, 3000):
            layers = [images.describe(b"%d" % number, mediatype.OCI_LAYER) for number in range(count)]
            images.Layout(directory / f"L{count}").add_image(
                images.CONFIG_C, [], images.manifest(images.CONFIG_C, layers), name="t"
            )
        index = images.compact({"schemaVersion": 2, "manifests": [{"digest": 5, "padding": "\u20ac" * 60_000}]})
        images.Layout(directory / "BROKEN").add_manifest(index, mediatype.OCI_INDEX, name="t")
        empty = images.manifest(b"{}", [images.LAYER_T], media_type=mediatype.DOCKER_MANIFEST)
        images.Layout(directory / "EMPTY").add_image(
            b"{}", [images.LAYER_T], empty, name="t", media_type=mediatype.DOCKER_MANIFEST
        )
        self._write_directory("DIR F2", images.MANIFEST_S, images.CONFIG_C, images.LAYER_T)
        self._write_directory("DIR EMPTY", empty, b"{}", images.LAYER_T)
        self.registry = make_content(REGISTRY_LAYER)
        self.names = {
            digest_of(data).encoded: name
            for name, data in (
                ("M", images.MANIFEST_M),
                ("S", images.MANIFEST_S),
                ("C", images.CONFIG_C),
                ("T", images.LAYER_T),
                ("BIG", self.big.content),
                ("BAD", self.bad.layout.blob_path(self.bad.layer.digest).read_bytes()),
                ("R", self.registry.layer),
                ("R manifest", self.registry.manifest),
                ("nothing", b""),
                ("{}", b"{}"),
            )
        }

    def _write_directory(self, name: str, manifest: bytes, *blobs: bytes) -> None:
        path = self.directory / name
        path.mkdir()
        (path / "version").write_text("Directory Transport Version: 1.1\n")
        (path / "manifest.json").write_bytes(manifest)
        for blob in blobs:
            (path / digest_of(blob).encoded).write_bytes(blob)

    def dir(self, name: str) -> str:
        """The reference of an image in a plain directory."""
        return f"dir:{self.directory}/DIR {name}"

    def oci(self, name: str, tag: str = "t") -> str:
        """The reference of a layout."""
        return f"oci:{self.directory}/{name}:{tag}"

    def docker(self) -> str:
        """The reference of the image in the registry."""
        return f"docker://{self.host.address}/{NAME}:t"

    def name_of(self, content: bytes) -> str:
        """What `content` is called here."""
        encoded = digest_of(content).encoded
        return self.names.get(encoded, f"{len(content)} other bytes")


@contextlib.contextmanager
def make_places(directory: Path) -> Iterator[Places]:
    """Build the images, and serve one of them."""
    content = make_content(REGISTRY_LAYER)
    with FaultyHost(registry_of(content)) as host, refusing_port() as port:
        yield Places(directory, host, port)


class Talk:
    """A conversation with one child, from its start to its end."""

    def __init__(self, parent: JsonParent, process: subprocess.Popen[bytes], places: Places) -> None:
        self.parent = parent
        self.process = process
        self.places = places

    def said(self, reply: Reply) -> str:
        """The line for a reply, whose descriptors stay open."""
        if not reply.members["success"]:
            return f"err {reply.members.get('error_code', '')}".strip()
        value = json.dumps(reply.members["value"])
        for encoded, name in self.places.names.items():
            value = value.replace(encoded, name)
        return f"ok {value}" + (f" +{len(reply.fds)}fd" if reply.fds else "") + (" pipe" if reply.pipe_id else "")

    def say(self, method: str, *arguments: object) -> str:
        """Ask; the line for the reply, whose descriptors are closed."""
        return self.say_text(json.dumps({"method": method, "args": arguments}))

    def say_text(self, text: str | bytes) -> str:
        """Send a packet as it is; as `say`."""
        reply = self.parent.ask_text(text)
        close_all(reply)
        return self.said(reply)

    def hear(self) -> str:
        """The line for the next reply, whose descriptors are closed."""
        reply = self.parent.reply()
        close_all(reply)
        return self.said(reply)

    def open(self, reference: str) -> int:
        """Initialize and open an image; its id."""
        self.parent.ask("Initialize")
        image: int = self.parent.ask("OpenImage", reference).value
        return image

    def fetch(self, method: str, *arguments: object) -> list[str]:
        """The lines for a finish-type pipe: reply, content, verdict. FinishPipe is sent before reading."""
        reply = self.parent.ask(method, *arguments)
        if not reply.members["success"]:
            return [self.said(reply)]
        self.parent.send("FinishPipe", reply.pipe_id)
        content = read_to_end(reply.fds[0])
        return [self.said(reply), self.places.name_of(content), self.said(self.parent.reply())]

    def fetch_raw(self, image: int, digest: Digest) -> list[str]:
        """The lines for a raw transfer: reply, content, what the error pipe says."""
        reply = self.parent.ask("GetRawBlob", image, str(digest))
        if not reply.members["success"]:
            return [self.said(reply)]
        content = read_to_end(reply.fds[0])
        return [self.said(reply), self.places.name_of(content), told(read_to_end(reply.fds[1]))]

    def end(self, *, stop: bool = True) -> list[str]:
        """The lines for the end: what is left in the socket, and how the child ended; `stop` closes our end first."""
        if stop:
            self.parent.sock.close()
            return [f"exit {self.process.wait(PATIENCE)}"]
        silent = self.parent.at_end()
        return ["end of file" if silent else "a reply", f"exit {self.process.wait(PATIENCE)}"]


def told(data: bytes) -> str:
    """The line for what an error pipe said."""
    return f"told {json.loads(data)['code']}" if data else "told nothing"


class Exchange(NamedTuple):
    """A row. `since` is the protocol version that has all its methods, `options` are further flags of the child."""

    name: str
    run: Callable[[Talk], list[str]]
    expected: list[str]
    since: str = "0.2.3"
    options: Sequence[str] = ()
    policy: str | None = "accept"


# --- beginning ---


def _b1(talk: Talk) -> list[str]:
    return [talk.say("Initialize"), talk.say("Initialize")]


def _b3(talk: Talk) -> list[str]:
    return [talk.say("Initialize", 1), talk.say("Initialize")]


def _b4_absent(talk: Talk) -> list[str]:
    return [talk.say_text('{"method":"Initialize"}')]


def _b4_null(talk: Talk) -> list[str]:
    return [talk.say_text('{"method":"Initialize","args":null}')]


def _b5(talk: Talk) -> list[str]:
    return [talk.say("OpenImage", talk.places.oci("F1")), talk.say("FinishPipe", 99)]


def _b7(talk: Talk) -> list[str]:
    talk.parent.send("Shutdown")
    return talk.end(stop=False)


# --- images ---


def _b8(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", talk.places.oci("F1")) for _ in range(2)]


def _b9(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [
        talk.say("OpenImageOptional", talk.places.oci("F1", "nope")),
        talk.say("OpenImageOptional", talk.places.oci("MISSING")),
        talk.say("OpenImageOptional", talk.places.docker().replace(":t", ":nope")),
        talk.say("OpenImageOptional", "nonsense"),
        talk.say("OpenImageOptional", talk.places.oci("F1")),
    ]


def _b11(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", talk.places.oci("F1", "nope")), talk.say("OpenImage", talk.places.oci("F1"))]


def _b12(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage"), talk.say("OpenImage", "a", "b"), talk.say("OpenImage", 5)]


def _b40(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("F1"))
    return [talk.say("CloseImage", image), talk.say("GetManifest", image), talk.say("CloseImage", image)]


def _b41(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    big = talk.places.big
    reply = talk.parent.ask("GetBlob", image, str(big.layer.digest), big.layer.size)
    first = read_exactly(reply.fds[0], 1000)
    closed = talk.say("CloseImage", image)
    talk.parent.send("FinishPipe", reply.pipe_id)
    rest = read_to_end(reply.fds[0])
    return [closed, talk.places.name_of(first + rest), talk.hear()]


def _b61(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", talk.places.oci("F1")), talk.say("OpenImageOptional", talk.places.oci("F1"))]


def _b61_open(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", talk.places.oci("F1"))]


def _b62(talk: Talk) -> list[str]:
    return [talk.say("Initialize"), talk.say("Initialize")]


# --- metadata ---


def _converted(method: str) -> Callable[[Talk], list[str]]:
    return lambda talk: talk.fetch(method, talk.open(talk.places.dir("F2")))


def _metadata(method: str, name: str) -> Callable[[Talk], list[str]]:
    return lambda talk: talk.fetch(method, talk.open(talk.places.oci(name)))


def _b17(talk: Talk) -> list[str]:
    return [talk.say("GetLayerInfo", talk.open(talk.places.oci("F1")))]


def _b18(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("F2"))
    reply = talk.parent.ask("GetLayerInfoPiped", image)
    talk.parent.send("FinishPipe", reply.pipe_id)
    content = read_to_end(reply.fds[0]).decode()
    return [talk.said(reply), content.replace(images.DIGEST_T.encoded, "T"), talk.hear()]


def _many_layers(count: int) -> Callable[[Talk], list[str]]:
    def run(talk: Talk) -> list[str]:
        image = talk.open(talk.places.oci(f"L{count}"))
        said = talk.say("GetLayerInfo", image)
        reply = talk.parent.ask("GetLayerInfoPiped", image)
        talk.parent.send("FinishPipe", reply.pipe_id)
        return [said, f"{len(json.loads(read_to_end(reply.fds[0])))} layers", talk.hear()]

    return run


def _b31(talk: Talk) -> list[str]:
    reply = talk.parent.ask("GetManifest", talk.open(talk.places.oci("F1")))
    read_exactly(reply.fds[0], len(images.MANIFEST_M))
    time.sleep(0.3)
    before = "open" if has_nothing(reply.fds[0]) else "end of file"
    verdict = talk.say("FinishPipe", reply.pipe_id)
    return [before, verdict, "end of file" if read_to_end(reply.fds[0]) == b"" else "more"]


def _b34(talk: Talk) -> list[str]:
    reply = talk.parent.ask("GetManifest", talk.open(talk.places.oci("F1")))
    said = [talk.say("FinishPipe", reply.pipe_id) for _ in range(2)]
    close_all(reply)
    return said


def _b35(talk: Talk) -> list[str]:
    return [talk.say("Initialize"), talk.say("FinishPipe"), talk.say("OpenImage", talk.places.oci("F1"))]


def _b36(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("FinishPipe", wrong) for wrong in ("3", None, True)]


def _b37(talk: Talk) -> list[str]:
    talk.open(talk.places.oci("F1"))
    wrong = ("0", "-1", "1.5", '"1"', "null", "true", "9007199254740992")
    return [talk.say_text(f'{{"method":"GetManifest","args":[{text}]}}') for text in wrong]


def _b38(talk: Talk) -> list[str]:
    talk.open(talk.places.oci("F1"))
    return [talk.say_text(f'{{"method":"GetManifest","args":[{text}]}}') for text in ("1e0", "1e400")]


def _b52(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("F1"))
    replies = [talk.parent.ask("GetManifest", image) for _ in range(300)]
    said = {talk.said(reply) for reply in replies}
    close_all(*replies)
    return [*said, talk.say("OpenImage", talk.places.oci("F1"))]


# --- blobs ---


def _blob(place: str, digest: Callable[[Places], Digest], size: int) -> Callable[[Talk], list[str]]:
    def run(talk: Talk) -> list[str]:
        return talk.fetch("GetBlob", talk.open(talk.places.oci(place)), str(digest(talk.places)), size)

    return run


def _layer_t(places: Places) -> Digest:
    return images.DIGEST_T


def _layer_bad(places: Places) -> Digest:
    return places.bad.layer.digest


def _b23(talk: Talk) -> list[str]:
    return talk.fetch_raw(talk.open(talk.places.oci("BAD")), talk.places.bad.layer.digest)


def _b24(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("F1"))
    wrong = ("sha256:abc", "md5:" + "0" * 32, "nope", "sha256:" + "A" * 64, "", f"{images.DIGEST_T}\n")
    return [talk.say("GetBlob", image, text, 10240) for text in wrong]


def _b25(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("F1"))
    unknown = ("sha256:" + "0" * 64, "sha384:" + "0" * 96, "sha512:" + "0" * 128)
    return [talk.say("GetBlob", image, text, 10240) for text in unknown]


def _b26(talk: Talk) -> list[str]:
    image, digest = talk.open(talk.places.oci("F1")), str(images.DIGEST_T)
    wrong: tuple[tuple[object, ...], ...] = ((5, 10240), (digest, "5"), (digest,))
    return [talk.say("GetBlob", image, *arguments) for arguments in wrong]


def _b27(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    reply = talk.parent.ask("GetBlob", image, str(talk.places.big.layer.digest), talk.places.big.layer.size)
    read_exactly(reply.fds[0], 10)
    close_all(reply)
    verdict = talk.parent.finish(reply)
    return [talk.said(verdict), verdict.members["error"][-11:]]


def _b28(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    reply = talk.parent.ask("GetRawBlob", image, str(talk.places.big.layer.digest))
    read_exactly(reply.fds[0], 10)
    os.close(reply.fds[0])
    return [talk.said(reply), told(read_to_end(reply.fds[1]))]


def _b29(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    reply = talk.parent.ask("GetRawBlob", image, str(talk.places.big.layer.digest))
    os.close(reply.fds[1])
    return [talk.places.name_of(read_to_end(reply.fds[0]))]


def _b30(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    layer = talk.places.big.layer
    blobs = [talk.parent.ask("GetBlob", image, str(layer.digest), layer.size) for _ in range(2)]
    manifest = talk.parent.ask("GetManifest", image)
    ids = {reply.pipe_id for reply in (*blobs, manifest)}
    lines = [f"{len(ids)} ids", talk.say("FinishPipe", manifest.pipe_id)]
    for reply in blobs:
        talk.parent.send("FinishPipe", reply.pipe_id)
        lines += [talk.places.name_of(read_to_end(reply.fds[0])), talk.hear()]
    close_all(manifest)
    return lines


def _b32(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    layer = talk.places.big.layer
    reply = talk.parent.ask("GetBlob", image, str(layer.digest), layer.size)
    talk.parent.send("FinishPipe", reply.pipe_id)
    talk.parent.send("CloseImage", image)
    waits = "waits" if not select.select([talk.parent.sock], [], [], 1)[0] else "answers"
    return [waits, talk.places.name_of(read_to_end(reply.fds[0])), talk.hear(), talk.hear()]


def _b65(talk: Talk) -> list[str]:
    return _config_of(talk, talk.open(talk.places.oci("EMPTY")))


def _b65_dir(talk: Talk) -> list[str]:
    return _config_of(talk, talk.open(talk.places.dir("EMPTY")))


def _config_of(talk: Talk, image: int) -> list[str]:
    reply = talk.parent.ask("GetManifest", image)
    talk.parent.send("FinishPipe", reply.pipe_id)
    config = json.loads(read_to_end(reply.fds[0]))["config"]
    talk.hear()
    blob = talk.parent.ask("GetBlob", image, config["digest"], config["size"])
    if not blob.members["success"]:
        return [talk.said(blob)]
    talk.parent.send("FinishPipe", blob.pipe_id)
    content = read_to_end(blob.fds[0])
    same = str(digest_of(content)) == config["digest"]
    return [f"{len(content)} bytes", "the digest that the manifest names" if same else "another digest", talk.hear()]


# --- packets ---


def _b42(talk: Talk) -> list[str]:
    wrong = (
        b"{}",
        b"null",
        b"[]",
        b'"x"',
        b'{"method":5}',
        b'{"method":"x","args":{}}',
        b"\0",
        b'\xef\xbb\xbf{"method":"Initialize"}',
    )
    return [*[talk.say_text(text) for text in wrong], talk.say("Initialize")]


def _b43(talk: Talk) -> list[str]:
    reply = talk.parent.ask_text('{"METHOD":"Nope"}')
    return [talk.said(reply), "named" if "Nope" in reply.members["error"] else "not named"]


def _b44(talk: Talk) -> list[str]:
    return [talk.say_text('{"method":"Initialize"} garbage'), talk.say("Initialize")]


def _b45(talk: Talk) -> list[str]:
    return [talk.say_text(b'{"method":"Initialize"}'.ljust(40_000)), talk.say("Initialize")]


def _b46(talk: Talk) -> list[str]:
    talk.parent.send("Initialize")
    talk.parent.send("OpenImage", talk.places.oci("F1"))
    talk.parent.send("CloseImage", 1)
    return [talk.hear() for _ in range(3)]


def _b47(talk: Talk) -> list[str]:
    talk.say("Initialize")
    directory = f"/proc/{talk.process.pid}/fd"
    talk.say("CloseImage", 1)
    before = len(os.listdir(directory))
    with open(os.devnull, "rb") as null:
        socket.send_fds(talk.parent.sock, [b'{"method":"CloseImage","args":[1]}'], [null.fileno()] * 3)
    return [talk.hear(), f"{len(os.listdir(directory)) - before} more descriptors"]


def _b48(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("F1"))  # `JsonParent` has that little space, and looks at MSG_CTRUNC
    return talk.fetch_raw(image, images.DIGEST_T)


def _b51(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", talk.places.oci("BROKEN")), talk.say("OpenImage", talk.places.oci("F1"))]


# --- the end ---


def _b53(talk: Talk) -> list[str]:
    talk.open(talk.places.oci("F1"))
    talk.parent.send("Shutdown")
    return talk.end(stop=False)


def _b54(talk: Talk) -> list[str]:
    image = talk.open(talk.places.oci("BIG"))
    reply = talk.parent.ask("GetRawBlob", image, str(talk.places.big.layer.digest))
    read_exactly(reply.fds[0], 10)
    talk.parent.send("Shutdown")
    lines = talk.end(stop=False)
    received = 10 + len(read_to_end(reply.fds[0]))
    whole = "all bytes" if received == talk.places.big.layer.size else "fewer bytes"
    return [*lines, whole, told(read_to_end(reply.fds[1]))]


def _b55_at_once(talk: Talk) -> list[str]:
    return talk.end()


def _b55_unread(talk: Talk) -> list[str]:
    talk.parent.send("Initialize")
    select.select([talk.parent.sock], [], [], PATIENCE)
    return talk.end()


def _b55_request(talk: Talk) -> list[str]:
    talk.parent.send("Initialize")
    return talk.end()


def _b56(talk: Talk) -> list[str]:
    talk.parent.send_text(b"")
    return talk.end(stop=False)


# --- registries ---


def _struck(phase: str, fault: object, run: Callable[[Talk], list[str]]) -> Callable[[Talk], list[str]]:
    def struck(talk: Talk) -> list[str]:
        assert callable(fault)
        talk.places.host.strikes = [Strike(phase, fault, None)]
        try:
            return run(talk)
        finally:
            talk.places.host.strikes = []

    return struck


def _registry_blob(talk: Talk) -> list[str]:
    image = talk.open(talk.places.docker())
    layer = talk.places.registry.layer
    return talk.fetch("GetBlob", image, str(digest_of(layer)), len(layer))


def _registry_raw(talk: Talk) -> list[str]:
    image = talk.open(talk.places.docker())
    return talk.fetch_raw(image, digest_of(talk.places.registry.layer))


def _registry_open(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", talk.places.docker())]


def _refused(talk: Talk) -> list[str]:
    talk.say("Initialize")
    return [talk.say("OpenImage", f"docker://127.0.0.1:{talk.places.refusing}/{NAME}:t")]


def _absent(talk: Talk) -> list[str]:
    image = talk.open(talk.places.docker())
    layer = talk.places.registry.layer
    lines = talk.fetch("GetBlob", image, str(digest_of(layer)), len(layer))
    return [*lines, talk.say("CloseImage", image)]


_CUT = at(50 / REGISTRY_LAYER, lambda exchange: exchange.end())
_INITIALIZED = 'ok "0.2.8"'
_LAYER = '{"digest": "sha256:T", "size": 10240, "media_type": "application/vnd.oci.image.layer.v1.tar"}'
_PIPED = '[{"digest":"sha256:T","size":10240,"media_type":"application/vnd.docker.image.rootfs.diff.tar"}]'
_OTHER, _AGAIN = "err other", "err retryable"

EXCHANGES: tuple[Exchange, ...] = (
    Exchange("B1 B2", _b1, [_INITIALIZED, _OTHER]),
    Exchange("B3", _b3, [_OTHER, _INITIALIZED]),
    Exchange("B4 absent", _b4_absent, [_INITIALIZED]),
    Exchange("B4 null", _b4_null, [_INITIALIZED]),
    Exchange("B5 B6", _b5, [_OTHER, _OTHER]),
    Exchange("B7", _b7, ["end of file", "exit 0"]),
    Exchange("B8", _b8, ["ok 1", "ok 2"]),
    Exchange("B9 B10", _b9, ["ok 0", _OTHER, "ok 0", _OTHER, "ok 1"], "0.2.4"),
    Exchange("B11", _b11, [_OTHER, "ok 1"]),
    Exchange("B12", _b12, [_OTHER] * 3),
    Exchange("B13", _metadata("GetManifest", "F1"), ['ok "sha256:M" +1fd pipe', "M", "ok null"]),
    Exchange("B14", _metadata("GetManifest", "F2"), ['ok "sha256:S" +1fd pipe', "M", "ok null"]),
    Exchange("B14 dir", _converted("GetManifest"), ['ok "sha256:S" +1fd pipe', "M", "ok null"]),
    Exchange("B15", _metadata("GetFullConfig", "F1"), ["ok null +1fd pipe", "C", "ok null"]),
    Exchange("B15 converted", _metadata("GetFullConfig", "F2"), ["ok null +1fd pipe", "C", "ok null"]),
    Exchange("B15 dir", _converted("GetFullConfig"), ["ok null +1fd pipe", "C", "ok null"]),
    Exchange("B16", _metadata("GetConfig", "F1"), ["ok null +1fd pipe", "{}", "ok null"]),
    Exchange("B17", _b17, [f"ok [{_LAYER}]"], "0.2.5"),
    Exchange("B18", _b18, ["ok null +1fd pipe", _PIPED, "ok null"], "0.2.7"),
    Exchange("B19", _blob("F1", _layer_t, 10240), ["ok 10240 +1fd pipe", "T", "ok null"]),
    Exchange("B20", _blob("F1", _layer_t, 10241), ["ok 10240 +1fd pipe", "T", _OTHER]),
    Exchange("B21", _blob("BAD", _layer_bad, images.BIG_SIZE), ["ok 3000000 +1fd pipe", "BAD", _OTHER]),
    Exchange("B22", _blob("BAD", _layer_bad, 5), ["ok 3000000 +1fd pipe", "BAD", _OTHER]),
    Exchange("B23", _b23, ["ok 3000000 +2fd", "BAD", "told nothing"], "0.2.8"),
    Exchange("B24", _b24, [_OTHER] * 6),
    Exchange("B25", _b25, [_OTHER] * 3),
    Exchange("B26", _b26, [_OTHER] * 3),
    Exchange("B27", _b27, ["err EPIPE", "broken pipe"]),
    Exchange("B28", _b28, ["ok 3000000 +2fd", "told EPIPE"], "0.2.8"),
    Exchange("B29", _b29, ["BIG"], "0.2.8"),
    Exchange("B30", _b30, ["3 ids", "ok null", "BIG", "ok null", "BIG", "ok null"]),
    Exchange("B31", _b31, ["open", "ok null", "end of file"]),
    Exchange("B32 B33", _b32, ["waits", "BIG", "ok null", "ok null"]),
    Exchange("B34", _b34, ["ok null", _OTHER]),
    Exchange("B35", _b35, [_INITIALIZED, _OTHER, "ok 1"]),
    Exchange("B36", _b36, [_OTHER] * 3),
    Exchange("B37", _b37, [_OTHER] * 7),
    Exchange("B38 B39", _b38, ['ok "sha256:M" +1fd pipe', _OTHER]),
    Exchange("B40", _b40, ["ok null", _OTHER, _OTHER]),
    Exchange("B41", _b41, ["ok null", "BIG", "ok null"]),
    Exchange("B42", _b42, [*[_OTHER] * 8, _INITIALIZED]),
    Exchange("B43", _b43, [_OTHER, "named"]),
    Exchange("B44", _b44, [_OTHER, _INITIALIZED]),
    Exchange("B45", _b45, [_OTHER, _INITIALIZED]),
    Exchange("B46", _b46, [_INITIALIZED, "ok 1", "ok null"]),
    Exchange("B47", _b47, [_OTHER, "0 more descriptors"]),
    Exchange("B48", _b48, ["ok 10240 +2fd", "T", "told nothing"], "0.2.8"),
    Exchange("B49", _many_layers(400), [_OTHER, "400 layers", "ok null"], "0.2.7"),
    Exchange("B50", _many_layers(3000), [_OTHER, "3000 layers", "ok null"], "0.2.7"),
    Exchange("B51", _b51, [_OTHER, "ok 1"]),
    Exchange("B52", _b52, ['ok "sha256:M" +1fd pipe', "ok 2"]),
    Exchange("B53", _b53, ["end of file", "exit 0"]),
    Exchange("B54", _b54, ["end of file", "exit 0", "fewer bytes", "told other"], "0.2.8"),
    Exchange("B55 at once", _b55_at_once, ["exit 0"]),
    Exchange("B55 with an unread reply", _b55_unread, ["exit 0"]),
    Exchange("B55 right after a request", _b55_request, ["exit 0"]),
    Exchange("B56", _b56, ["end of file", "exit 0"]),
    Exchange("B58 GetBlob", _struck("blob", chunked, _registry_blob), ["ok 200000 +1fd pipe", "R", "ok null"]),
    Exchange(
        "B58 GetRawBlob", _struck("blob", chunked, _registry_raw), ["ok 200000 +2fd", "R", "told nothing"], "0.2.8"
    ),
    Exchange("B59 GetBlob", _struck("blob", _CUT, _registry_blob), ["ok 200000 +1fd pipe", "50 other bytes", _AGAIN]),
    Exchange(
        "B59 GetRawBlob",
        _struck("blob", _CUT, _registry_raw),
        ["ok 200000 +2fd", "50 other bytes", "told retryable"],
        "0.2.8",
    ),
    *(
        Exchange(f"B60 {code}", _struck("index", status(code), _registry_open), [_AGAIN])
        for code in (500, 502, 503, 504)
    ),
    Exchange("B60 refused", _refused, [_AGAIN]),
    Exchange(
        "4 absent blob",
        _struck("blob", status(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}'), _absent),
        [_OTHER, "ok null"],
    ),
    Exchange("B61 OpenImage", _b61_open, [_OTHER], policy="reject"),
    Exchange("B61", _b61, [_OTHER, _OTHER], "0.2.4", policy="reject"),
    Exchange("B62", _b62, [_OTHER, _OTHER], policy="unreadable"),
    Exchange("B63", _b62, [_OTHER, _OTHER], options=("--creds=a:b", "--no-creds")),
    Exchange("B65", _b65, ["76 bytes", "the digest that the manifest names", "ok null"]),
    Exchange("B65 dir", _b65_dir, ["76 bytes", "the digest that the manifest names", "ok null"]),
)


def policy_option(directory: Path, policy: str | None) -> str:
    """The flag that names a policy of this kind, which is written to `directory`."""
    if policy is None:
        return "--insecure-policy"
    path = directory / f"{policy}.json"
    kinds = {"accept": "insecureAcceptAnything", "reject": "reject"}
    path.write_text(json.dumps({"default": [{"type": kinds[policy]}]}) if policy in kinds else "{")
    return f"--policy={path}"
