# SPDX-License-Identifier: Apache-2.0
"""registries.d: where the signatures of an image are found (registry.md 7.1).

The only importer of `yaml`, and only when a policy asks for signatures: a broken file stops those images alone.
The text is composed to nodes and never constructed to objects, so that a key that occurs twice is seen.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from .. import log
from ..content import require_time
from ..errors import ConfigurationError, MissingDependencyError, quote_own
from ..model.reference import DockerReference, unmatched_scope
from ..settings import HostEnvironment, Settings
from . import paths
from .paths import ConfigurationFile, read_configuration

BY_DIGEST = "by-digest"
_IDENTITIES = ("refuse", BY_DIGEST)  # of `sigstore-bundle-identity`
_LOOKASIDES = ("lookaside", "sigstore", "lookaside-staging", "sigstore-staging")
Node = Any  # a node of yaml: the classes are known only where it is imported
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})
_CORE_TAGS = "tag:yaml.org,2002:"
_STRING_TAG, _NULL_TAG, _MERGE_TAG = (f"{_CORE_TAGS}{name}" for name in ("str", "null", "merge"))
_SCHEME = r"(?a)(file|https?)://"
# as url.Parse of Go, which takes any % in a query
_NO_URL = (
    r"[\x00-\x1f\x7f]|^[^?#]*%(?![0-9A-Fa-f]{2})|#.*%(?![0-9A-Fa-f]{2})"
    r"|^[a-z]+://[^/?#]*[^A-Za-z0-9._:~!$&'()*+,;=%@/?#-][^/?#]*@"  # of user information
    r"|^https?://(?:[^/?#]*@)?+[^][:/?#]*:(?![0-9]*(?:[/?#]|$))"  # of a port, or of a password behind a slash
)
_FLOW = rb"[][{}]"
_DEPTH = 128  # of { and [; PyYAML takes the square of it for each word inside


class SignatureLocation(NamedTuple):
    """Where signatures of one image are looked for.

    `lookaside` is a base URL of scheme file, http or https (it may hold a password: never show it whole), `file` the
    file that names it, empty for the built-in default. `attachments`: also those that sigstore puts beside the image.
    `bundles`: also those that refer to it; None is not set (bundles.md 1.1).
    """

    lookaside: str
    attachments: bool
    file: str
    bundles: bool | None = None


class BundleTrust(NamedTuple):
    """What is said about bundles under a requested name (bundles.md 4.1); never looked up by a mirror's name.

    `file` says that they may be accepted `by_digest`, or is the directory where that could be said of `scope`.
    """

    by_digest: bool
    file: str
    scope: str
    trusted_root: str  # absolute path, or empty
    trusted_root_file: str  # that names it


class Section(NamedTuple):
    """What a file says about one scope; None is not set."""

    lookaside: str | None
    attachments: bool | None
    file: str
    line: int
    bundles: bool | None = None
    bundle_identity: str | None = None
    trusted_root: str | None = None


class SignatureStores(NamedTuple):
    """All of registries.d: sections by scope, and the one for everything else."""

    sections: dict[str, Section]
    default: Section | None
    fallback: str  # the built-in lookaside
    files: tuple[ConfigurationFile, ...]
    directory: str = ""

    def place(self, reference: DockerReference) -> SignatureLocation:
        """Where the signatures of the physical `reference` are. Raises ConfigurationError for an unusable URL.

        Each setting falls through on its own: a specific section that lacks it does not hide a general one.
        """
        sections = list(self._matching(reference))
        attachments = next((each.attachments for each in sections if each.attachments is not None), False)
        bundles = next((each.bundles for each in sections if each.bundles is not None), None)
        section = next((each for each in sections if each.lookaside), None)
        if section is None or section.lookaside is None:
            return SignatureLocation(self.fallback, attachments, "", bundles)
        if not re.match(_SCHEME, section.lookaside):
            raise ConfigurationError(
                f"{section.file} line {section.line}: lookaside",
                f"expected a URL of scheme file, http or https, found {quote_own(section.lookaside.partition(':')[0])}",
            )
        if re.search(_NO_URL, section.lookaside):
            raise ConfigurationError(
                f"{section.file} line {section.line}: lookaside",
                "expected a URL, found a character, an escape or a port that none can have there",
            )
        return SignatureLocation(section.lookaside, attachments, section.file, bundles)

    def bundle_trust(self, requested: DockerReference) -> BundleTrust:
        """What holds for the bundles of the image that was asked for as `requested`."""
        sections = list(self._matching(requested))
        identity = next((each for each in sections if each.bundle_identity is not None), None)
        root = next((each for each in sections if each.trusted_root is not None), None)
        by_digest = identity is not None and identity.bundle_identity == BY_DIGEST
        file = identity.file if identity is not None and by_digest else self.directory
        path, path_file = (root.trusted_root or "", root.file) if root is not None else ("", "")
        return BundleTrust(by_digest, file, f"docker: {requested.name}", path, path_file)

    def _matching(self, reference: DockerReference) -> Iterator[Section]:
        for scope in (str(reference), *reference.scopes()):
            if scope in self.sections:
                yield self.sections[scope]
        if self.default is not None:
            yield self.default


def load_registries_d(settings: Settings, *, warn: Callable[[str], None] = log.warning) -> SignatureStores:
    """Read every file of registries.d.

    Raises ConfigurationError naming file and line: unreadable, malformed, one scope in two files or twice in one;
    MissingDependencyError when there is a file and no package that reads it.
    """
    sections: dict[str, Section] = {}
    default: Section | None = None
    files = _files(settings)
    for path in files:
        for scope, section in _parse_file(path, read_configuration(path)):
            why = unmatched_scope(scope) if scope is not None else ""
            if why:
                warn(f"{path} line {section.line}: docker: {quote_own(scope)} is the scope of no image: {why}")
            earlier = default if scope is None else sections.get(scope)
            if earlier is not None:
                what = "default-docker" if scope is None else f"docker: {quote_own(scope)}"
                message = f"defined before in {earlier.file} line {earlier.line}"
                raise ConfigurationError(f"{path} line {section.line}: {what}", message)
            if scope is None:
                default = section
            else:
                sections[scope] = section
    directory = _directory(settings)
    return SignatureStores(
        sections,
        default,
        _default_lookaside(settings.environment),
        tuple(ConfigurationFile(path, "registries.d", bool(files)) for path in files or (directory,)),
        directory,
    )


def unread_registries_d(settings: Settings) -> str:
    """A warning when registries.d has files and the package that reads them is missing, else empty; nothing is read.

    For images whose policy asks for no signature: those that need one are refused (decisions.md section 2).
    """
    try:
        present = bool(_files(settings))
    except ConfigurationError as error:
        return f"{error} (no harm to images whose policy asks for no signature)"
    if not present or _has_yaml():
        return ""
    directory = _directory(settings)
    return f"{directory}: not read, because PyYAML is not installed: an image that needs a signature will be refused"


def _has_yaml() -> bool:
    from importlib.machinery import PathFinder

    return PathFinder.find_spec("yaml") is not None


# --- places ---


def _directory(settings: Settings) -> str:
    """The one directory of registries.d that is read; it need not exist (registry.md 7.1)."""
    if settings.registries_d is not None:
        return settings.registries_d
    user = os.path.join(paths.home_directory(settings.environment), "registries.d")
    return user if paths.is_present(user) else os.path.join(paths.ADMIN_DIRECTORY, "registries.d")


def _files(settings: Settings) -> tuple[str, ...]:
    """The files of registries.d, sorted. Raises ConfigurationError."""
    directory = _directory(settings)
    return tuple(os.path.join(directory, name) for name in paths.list_directory(directory, ".yaml"))


def _default_lookaside(environment: HostEnvironment) -> str:
    """The URL of the directory where signatures lie when registries.d names none."""
    if paths.rootless_uid(environment, environment.euid) == 0:
        return f"file://{paths.STATE_DIRECTORY}/sigstore"
    home = environment.home.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    return f"file://{home}/.local/share/containers/sigstore"


# --- one file ---


class _TimedText(io.StringIO):
    """A text for PyYAML, which looks at no clock itself but reads a few thousand characters at once."""

    def read(self, size: int | None = -1, /) -> str:
        """The next characters. Raises SourceError (timeout)."""
        require_time()
        return super().read(size)


def _parse_file(path: str, data: bytes) -> Iterator[tuple[str | None, Section]]:
    """Scopes with their sections; the scope None is `default-docker`."""
    root = _compose(path, data)
    if root is None:
        return
    for key, value in _members(path, root, "the file"):
        if key == "default-docker" and not _is_null(value):
            yield None, _parse_section(path, value, key)
        elif key == "docker" and not _is_null(value):
            for scope, section in _members(path, value, "docker"):
                yield scope, _parse_section(path, section, f"docker: {quote_own(scope)}")


def _loader(yaml: Any) -> Any:
    """PyYAML's loader without what it passes over and Go refuses: other directives, and tags that do not fit."""

    def refuse(mark: Any, what: str) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=what, problem_mark=mark)

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def scan_directive(self) -> Any:
            token = super().scan_directive()
            if token.name != "TAG" and (token.name, token.value) != ("YAML", (1, 1)):
                refuse(token.start_mark, "a directive other than %YAML 1.1 and %TAG")
            return token

        def compose_scalar_node(self, anchor: Any) -> Any:
            event = self.peek_event()
            tag = str(event.tag or "")
            if tag.startswith(_CORE_TAGS) and tag != _STRING_TAG:
                refuse(event.start_mark, "a tag that says what a word is, expected none but !!str")
            return super().compose_scalar_node(anchor)

    return Loader


def _compose(path: str, data: bytes) -> Node | None:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError("PyYAML", f"read {path}, which says where signatures are") from error
    depth = 0
    for mark in re.finditer(_FLOW, data):
        depth += 1 if mark[0] in b"{[" else -1
        if depth > _DEPTH:
            raise ConfigurationError(path, "not valid YAML: nested too deep")
    try:
        return yaml.compose(_TimedText(data.decode("utf-8")), Loader=_loader(yaml))
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, f"not valid UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        # never its text: that repeats lines of the file
        line = "" if error.problem_mark is None else f" at line {error.problem_mark.line + 1}"
        why = f"not valid YAML{line}: {quote_own(error.problem or 'malformed')[1:-1]}"
        raise ConfigurationError(path, why) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(path, "not valid YAML: a character that is not allowed") from error
    except (ValueError, OverflowError) as error:  # of chr(): PyYAML takes any eight digits for a character
        raise ConfigurationError(path, "not valid YAML: an escape that is no character") from error
    except RecursionError as error:
        raise ConfigurationError(path, "not valid YAML: nested too deep") from error


def _members(path: str, node: Node, what: str) -> Iterator[tuple[str, Node]]:
    """Keys and values of a mapping; nothing for an empty one. Raises ConfigurationError for a key that occurs twice."""
    if _is_null(node):
        return
    if node.id != "mapping":
        raise ConfigurationError(_where(path, node), f"{what}: expected a mapping, found {_kind(node)}")
    seen: set[str] = set()
    for key_node, value in node.value:
        if key_node.id != "scalar":
            raise ConfigurationError(_where(path, key_node), f"{what}: expected a word as key, found {_kind(key_node)}")
        if key_node.tag == _MERGE_TAG:
            raise ConfigurationError(_where(path, key_node), f"{what}: merging with << is not supported")
        key: str = key_node.value
        if key in seen:
            raise ConfigurationError(_where(path, key_node), f"{what}: the key {quote_own(key)} occurs twice")
        seen.add(key)
        yield key, value


def _parse_section(path: str, node: Node, what: str) -> Section:
    texts: dict[str, str | None] = {}
    flags: dict[str, bool | None] = {}
    for key, value in _members(path, node, what):
        label = f"{what}: {key}"
        if key in _LOOKASIDES:
            texts[key] = _text(path, value, label)
        elif key in ("use-sigstore-attachments", "use-sigstore-bundles"):
            flags[key] = _flag(path, value, label)
        elif key == "sigstore-bundle-identity":
            texts[key] = text = _text(path, value, label)
            if text not in (None, *_IDENTITIES):
                raise _invalid(path, value, label, f"one of {', '.join(_IDENTITIES)}", text)
        elif key == "sigstore-trusted-root":
            texts[key] = text = _text(path, value, label)
            if text is not None and not text.startswith("/"):
                raise _invalid(path, value, label, "an absolute path", text)
    attachments, bundles = flags.get("use-sigstore-attachments"), flags.get("use-sigstore-bundles")
    identity, root = texts.get("sigstore-bundle-identity"), texts.get("sigstore-trusted-root")
    lookaside, line = texts.get("lookaside") or texts.get("sigstore"), int(node.start_mark.line) + 1
    return Section(lookaside, attachments, path, line, bundles, identity, root)


def _invalid(path: str, node: Node, what: str, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(_where(path, node), f"{what}: expected {expected}, found {quote_own(found)}")


def _text(path: str, node: Node, what: str) -> str | None:
    if _is_null(node):
        return None
    if node.id != "scalar":
        raise ConfigurationError(_where(path, node), f"{what}: expected a text, found {_kind(node)}")
    text = str(node.value)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ConfigurationError(_where(path, node), f"{what}: an escape that is no character")
    return text


def _flag(path: str, node: Node, what: str) -> bool | None:
    text = _text(path, node, what)
    if text is None:
        return None
    word = text.lower()
    # PyYAML takes `y` and `n` for texts; the other tools know no mixed case
    plain = node.tag != _STRING_TAG or (node.style is None and word in ("y", "n"))
    if plain and word in _TRUE | _FALSE and text in (word, word.capitalize(), word.upper()):
        return word in _TRUE
    raise _invalid(path, node, what, "true or false", text)


def _is_null(node: Node) -> bool:
    return bool(node.tag == _NULL_TAG)


def _kind(node: Node) -> str:
    return {"mapping": "a mapping", "sequence": "a list"}.get(node.id, "a text")


def _where(path: str, node: Node) -> str:
    return f"{path} line {int(node.start_mark.line) + 1}"
