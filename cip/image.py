# SPDX-License-Identifier: Apache-2.0
"""The core: an image reference becomes an `Image` that both front ends serve from.

Here alone bytes and belief meet: the source brings the top manifest, `trust` accepts it or the chosen instance,
and only then the image exists. The bytes that were accepted are the bytes that are served; nothing is fetched twice.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from . import log, rooms
from .content import BlobReader, BytesReader, TimedReader, require_content, timed
from .errors import (
    CipError,
    ErrorCode,
    ImageAbsentError,
    InvalidDigestError,
    InvalidDocumentError,
    NotFoundError,
    Phase,
    SourceError,
    UnsupportedError,
)
from .events import Events, failure
from .hostconfig.machine import host_platforms
from .imageconfig import ImageConfig
from .model import mediatype
from .model.descriptor import UNKNOWN_SIZE, Descriptor, Platform
from .model.digest import Digest, digest_of
from .model.manifest import Index, Manifest, parse_manifest
from .model.platform import choose_instance
from .model.reference import Transport, parse_image_reference
from .model.signature import FoundBundles, RawSignature, SigstoreSignature
from .settings import Settings
from .sources.base import BlobAccess, ImageSource
from .transports import SourceOpener
from .trust.evaluation import (
    Audit,
    Decision,
    GpgvOutcome,
    ImageRejectedError,
    InstanceUnavailableError,
    RunGpgv,
    Subject,
    TrustTools,
    UnverifiedImage,
    require_accepted,
    require_complete,
    require_index_or_instance,
)
from .trust.policy import Policy
from .trust.requirements import BundleRules

if TYPE_CHECKING:
    from .readahead import ReadAhead
    from .referrers import ImageReferrers, ServedReferrer

T = TypeVar("T")
INDEX_DEPTH = 4  # indexes inside indexes (decisions.md section 1)


class ServedManifest(NamedTuple):
    """A manifest in OCI form.

    `digest` is the sha256 of the per-platform manifest before conversion, `index_digest` that of the top index,
    None when the reference names a manifest directly.
    """

    data: bytes
    media_type: str
    digest: Digest
    index_digest: Digest | None


class Image:
    """One accepted image. Safe to use from several threads; `close` leaves open readers alone."""

    def __init__(
        self,
        reference: str,
        source: ImageSource,
        accepted: AcceptedManifest,
        events: Events,
        wanted: Sequence[Platform],
    ) -> None:
        """`wanted` are the platforms asked for, none for one named by its digest; ImageConfig compares them."""
        self.reference = reference
        self.source = source  # for what copies an image as it is; nothing read from it is checked
        self.accepted = accepted
        self._events = events
        self._listed: ImageReferrers | None = None  # what refers to the image, once the parent has asked
        self._ahead: ReadAhead | None = None
        self._prepare_blobs: Callable[[], object] = tuple
        self._blob_seconds = 0.0
        self._ahead_limit = 0
        self._ahead_connections = 0
        self._ahead_guess = False
        self._served: tuple[ServedManifest, BlobInMemory | None] | None = None
        self._lock = threading.Lock()
        manifest = accepted.manifest
        self._config = ImageConfig(reference, manifest, source.open_blob, wanted, events)
        self._layers = tuple(source.stored_layers(manifest.layers))
        blobs = (manifest.config, *manifest.layers, *self._layers)
        self._blobs = {descriptor.digest: descriptor for descriptor in reversed(blobs)}

    @property
    def manifest(self) -> ServedManifest:
        """The manifest in OCI form; a Docker one is converted, which reads its config.

        Raises SourceError, ContentMismatchError, InvalidDocumentError when that config cannot be had or converted.
        """
        return self._converted()[0]

    @property
    def fetchable_manifest(self) -> ServedManifest:
        """As `manifest`, but it names the layers as the source can serve them, for a parent that has no other list.

        A local storage has the plain tar of a layer that its manifest names compressed (images.md 4.4). `digest` stays
        that of the stored manifest. Raises as `manifest`, and UnsupportedError for a layer that cannot be rebuilt.
        """
        accepted = self.accepted
        if [layer.digest for layer in self._layers] == [layer.digest for layer in accepted.manifest.layers]:
            return self.manifest
        for layer in self._layers:
            if layer.size == UNKNOWN_SIZE:
                raise UnsupportedError(f"{self._where(f'layer {layer.digest}')}: cannot be rebuilt from its storage")
        from .model.convert import convert_manifest, with_layers

        if accepted.manifest.media_type == mediatype.OCI_MANIFEST:
            data = with_layers(accepted.data, self._layers, self._where("manifest"))
        else:
            stored = accepted.manifest._replace(layers=self._layers)
            data = convert_manifest(stored, self._config.stored(), self.reference).manifest
        return ServedManifest(data, mediatype.OCI_MANIFEST, accepted.digest, accepted.index_digest)

    def config(self) -> bytes:
        """The config in OCI form, encoded anew (images.md 7.3), at most MANIFEST_LIMIT bytes.

        Raises UnsupportedError for an artifact, whose config is none, and what `manifest` raises.
        """
        return self._config.encoded()

    def inner_config(self) -> bytes:
        """The `config` object inside the config, as the deprecated GetConfig answers. Raises as `config`."""
        return self._config.inner()

    def require_platform(self) -> None:
        """Return unless the image is for another platform than those asked for. Raises as ImageConfig's."""
        self._config.require_platform()

    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first, as the source can serve them and with the media types of the unconverted manifest."""
        return self._layers

    def describe_blob(self, digest: Digest) -> Descriptor:
        """The descriptor of a blob that this image names. Raises NotFoundError (blob-not-in-image)."""
        found = self._blobs.get(digest) or self._listed_blob(digest)
        if found is not None:
            return found
        if self.accepted.manifest.media_type == mediatype.DOCKER_MANIFEST:
            converted = self._converted()[1]
            if converted is not None and converted.descriptor.digest == digest:
                return converted.descriptor
        raise NotFoundError(
            f"{self.reference}: the image names no blob {digest}", code=ErrorCode.BLOB_NOT_IN_IMAGE, digest=str(digest)
        )

    def open_blob(self, digest: Digest, access: BlobAccess) -> BlobReader:
        """The blob, open for reading and not yet checked; the caller closes it.

        Raises NotFoundError (blob-not-in-image), and what a source that looks for it now raises: blob-not-found,
        SourceError. A registry is asked by the first read, which raises the same.
        """
        descriptor = self.describe_blob(digest)
        converted = self._served[1] if self._served is not None else None
        if converted is not None and converted.descriptor == descriptor:
            return BytesReader(converted.data)
        self._prepare_blobs()
        listed = self._listed if digest not in self._blobs else None
        timer = _timer(self._blob_seconds or math.inf, "--deadline")
        try:
            is_config = descriptor == self.accepted.manifest.config and self._config.is_image()
            if is_config and access is BlobAccess.VERIFIED:
                reader: BlobReader = BytesReader(self._config.stored())  # small, and looked at before it is passed on
            else:
                ahead = self._read_ahead() if self._ahead_limit and listed is None else None
                with timed(timer):
                    reader = (listed or ahead or self.source).open_blob(descriptor, access)
        except CipError as error:
            self._events.emit("failed", image=self.reference, digest=str(digest), **failure(error))
            raise
        if self._blob_seconds:
            reader = TimedReader(reader, timer)
        return self._events.follow(reader, descriptor, self.reference)

    def referrers(self, artifact_type: str | None = None) -> tuple[bytes, int]:
        """What refers to the image as one OCI index, and how many entries it has (bundles.md section 5).

        Raises SourceError, InvalidDocumentError (limit-exceeded).
        """
        return self._referrers().index(artifact_type)

    def referrer_manifest(self, digest: Digest) -> ServedReferrer:
        """The manifest of one of `referrers`; config and layers that it names can be opened from now on.

        Raises NotFoundError (blob-not-in-image, blob-not-found), ContentMismatchError, SourceError.
        """
        return self._referrers().manifest(digest)

    def limit_blobs(self, seconds: float) -> None:
        """From now on a blob takes at most so many seconds from its opening on, wherever it is; 0: no limit."""
        self._blob_seconds = seconds

    def before_blobs(self, prepare: Callable[[], object]) -> None:
        """Have `prepare` called before a blob is opened, which may need further threads; it may be called again."""
        self._prepare_blobs = prepare

    def read_ahead(self, limit: int, connections: int, *, guess: bool) -> None:
        """From now on request layers before they are asked for, `limit` bytes of the next one; 0 changes nothing.

        The source has so many connections. With `guess` the parent need not ask for two in a row first.
        """
        self._ahead_limit = limit
        self._ahead_connections = connections
        self._ahead_guess = guess

    def close(self) -> None:
        """Release the source."""
        if self._ahead is not None:
            self._ahead.close()
        self.source.close()

    def _referrers(self) -> ImageReferrers:
        if self._listed is None:
            accepted = self.accepted
            subjects = [each for each in (accepted.index_digest, accepted.digest) if each is not None]
            source = self.source.referrer_source()
            listed = rooms.image_referrers(self.reference, source, subjects, accepted.signed_by)
            with self._lock:
                self._listed = self._listed or listed
        return self._listed

    def _listed_blob(self, digest: Digest) -> Descriptor | None:
        return self._listed.find_blob(digest) if self._listed is not None else None

    def _read_ahead(self) -> ReadAhead | None:
        with self._lock:
            if self._ahead is None:
                self._ahead = rooms.read_ahead(
                    self.source.open_blob, self._layers, self._ahead_limit, self._ahead_connections,
                    guess=self._ahead_guess,
                )  # fmt: skip
            return self._ahead

    def _where(self, part: str) -> str:
        return f"{self.reference}: {part}"

    def _converted(self) -> tuple[ServedManifest, BlobInMemory | None]:
        if self._served is None:
            accepted = self.accepted
            if accepted.manifest.media_type == mediatype.OCI_MANIFEST:
                served = ServedManifest(accepted.data, mediatype.OCI_MANIFEST, accepted.digest, accepted.index_digest)
                self._served = (served, None)
                return self._served
            from .model.convert import convert_manifest

            converted = convert_manifest(accepted.manifest, self._config.stored(), self.reference)
            served = ServedManifest(
                converted.manifest, mediatype.OCI_MANIFEST, accepted.digest, accepted.index_digest
            )
            self._served = (served, BlobInMemory(converted.config_descriptor, converted.config))
        return self._served


class BlobInMemory(NamedTuple):
    """A blob that exists nowhere in the source: the config of a converted manifest."""

    descriptor: Descriptor
    data: bytes


class ImageOpener:
    """Opens images for one process: one policy, one set of settings, one pool of connections."""

    def __init__(self, settings: Settings, sources: SourceOpener, tools: TrustTools, load_policy: Callable[[], Policy],
                 *, events: Events, audit: Audit) -> None:
        self._settings = settings
        self.sources = sources
        self._tools = tools
        self._gpgv = _Reliable(tools.run_gpgv)
        self._load_policy = load_policy
        self.events = events
        self._audit = audit
        self._policy: Policy | None = None
        self._wanted: tuple[Platform, ...] = ()

    @property
    def policy(self) -> Policy | None:
        """The policy, None until `prepare` has read it."""
        return self._policy

    def prepare(self) -> None:
        """Read what every image needs: policy, credential flags, this host's platform. A failed call may be repeated.

        Raises UsageError for contradicting flags, ConfigurationError (policy-missing, policy-invalid).
        """
        self._settings.credentials.explicit()
        if not self._wanted:
            self._wanted = host_platforms(self._settings.platform)
        if self._policy is None:
            self._policy = self._load_policy()

    def open(self, text: str, instance: Digest | None = None) -> Image:
        """The image that `text` names, once the policy accepts it.

        Of an index the instance for the platform, or the one with the digest `instance`, which must be from the index.

        Raises InvalidReferenceError, UnsupportedError, NotFoundError, SourceError, PolicyRejectedError,
        InvalidDocumentError; nothing stays open then.
        """
        self.prepare()
        try:
            image, manifest = self._open(text, instance)
        except CipError as error:
            self.events.emit("failed", image=text, **failure(error))
            raise
        if self._settings.decryption_keys and any(each.media_type.endswith("+encrypted") for each in manifest.layers):
            log.warning("%s: --decryption-key is ignored: encrypted layers are served as they are", text)
        self.events.emit(
            "plan",
            image=text,
            layers=len(manifest.layers),
            bytes=manifest.config.size + sum(layer.size for layer in manifest.layers),
        )
        return image

    def _open(self, text: str, instance: Digest | None) -> tuple[Image, Manifest]:
        times = self._settings.times
        timer = _timer(times.open, "--open-timeout", Phase.SIGNATURE)
        tools = self._tools._replace(run_gpgv=self._gpgv, require_time=timer)
        with timed(_timer(min(times.open, times.deadline or times.open), "--open-timeout and --deadline")):
            return self._open_timed(text, instance, tools)

    def _open_timed(self, text: str, instance: Digest | None, tools: TrustTools) -> tuple[Image, Manifest]:
        source = self.sources.open(parse_image_reference(text))
        try:
            accepted = self._accept(text, source, tools, instance)
            image = Image(text, source, accepted, self.events, self._wanted if instance is None else ())
            image.limit_blobs(self._settings.times.deadline)
            if self._settings.platform.required:
                image.require_platform()
            if source.identity.transport is Transport.DOCKER:
                limits = self._settings.transfer
                image.read_ahead(limits.read_ahead, limits.connections, guess=False)
            return image, accepted.manifest
        except BaseException:
            source.close()
            raise

    def close(self) -> None:
        """Release connections."""
        self.sources.close()

    def _accept(
        self, text: str, source: ImageSource, tools: TrustTools, named_instance: Digest | None
    ) -> AcceptedManifest:
        """The top manifest or the instance chosen from it, accepted by the policy (signatures.md section 6)."""
        top = source.manifest(None)
        digest = digest_of(top.data)
        named = source.identity.docker.digest if source.identity.docker else None
        if named is not None:
            _require_sha256(named)
            require_content(top.data, named, f"{text}: manifest")
        unverified = self._unverified(source, top.data, digest, None)

        def decide(policy: Policy, signed: bool) -> Decision:
            return require_accepted(policy, unverified, tools, require_signed=signed)

        try:
            parsed = parse_manifest(top.data, top.media_type, f"{text}: manifest")
        except (InvalidDocumentError, UnsupportedError):
            # An image that may not be used is refused for that, not for what it looks like.
            self._judge(text, source, [digest], None, decide)
            raise
        if isinstance(parsed, Manifest):
            decision = self._judge(text, source, [digest], None, decide)
            return AcceptedManifest(parsed, top.data, digest, None, signed_by=_signing_referrers(decision, unverified))
        return self._accept_index(text, source, parsed, digest, unverified, tools, named_instance)

    def _accept_index(
        self,
        text: str,
        source: ImageSource,
        index: Index,
        digest: Digest,
        unverified: UnverifiedImage,
        tools: TrustTools,
        named_instance: Digest | None,
    ) -> AcceptedManifest:
        chosen: list[AcceptedManifest] = []
        judged = [unverified]
        digests = [digest]

        def instance() -> UnverifiedImage:
            found = self._resolve(text, source, index, named_instance)
            chosen.append(found._replace(index_digest=digest))
            digests.append(found.digest)
            judged.append(self._unverified(source, found.data, found.digest, found.entry))
            return judged[-1]

        def decide(policy: Policy, signed: bool) -> Decision:
            decision = require_index_or_instance(policy, unverified, instance, tools, require_signed=signed)
            try:
                if not chosen:
                    instance()
            except CipError as error:
                raise InstanceUnavailableError(decision, error) from error
            return decision

        decision = self._judge(text, source, digests, digest, decide)
        accepted = judged[1] if decision.requirements[-1].subject is Subject.INSTANCE else unverified
        return chosen[0]._replace(signed_by=_signing_referrers(decision, accepted))

    def _judge(
        self,
        text: str,
        source: ImageSource,
        digests: Sequence[Digest],
        index_digest: Digest | None,
        decide: Callable[[Policy, bool], Decision],
    ) -> Decision:
        """Let the policy decide, look at what it accepted, and tell audit and events. Raises PolicyRejectedError.

        `digests` are of what is judged, that of the manifest to be served last; `decide` may add to them.
        """
        assert self._policy is not None  # `prepare` ran
        signed = self._settings.policy.require_signed
        try:
            decision = decide(self._policy, signed)
        except ImageRejectedError as error:
            self._record(text, digests[-1], index_digest, error.decision)
            raise
        except InstanceUnavailableError as unavailable:
            self._record(text, digests[-1], index_digest, unavailable.decision)
            if not unavailable.decision.accepted:
                log.warning("%s: the policy refuses the index, and no instance of it can be judged instead", text)
            raise unavailable.cause from unavailable
        require_complete(decision, self._policy, source.identity, digests, require_signed=signed)
        self._record(text, digests[-1], index_digest, decision)
        return decision

    def _unverified(
        self, source: ImageSource, data: bytes, digest: Digest, instance: Digest | None
    ) -> UnverifiedImage:
        signatures = _Once(lambda: source.signatures(digest, instance))
        bundles = _Once(lambda: _find_bundles(source, digest, signatures))
        return UnverifiedImage(
            source.identity,
            data,
            signatures,
            lambda: _signature_places(source, bundles.asked),
            bundles,
            lambda: _bundle_rules(source, self._settings),
        )

    def _record(self, text: str, digest: Digest, index_digest: Digest | None, decision: Decision) -> None:
        self.events.emit("policy", image=text, accepted=decision.accepted, scope=decision.scope)
        self._audit(decision, reference=text, digest=digest, index_digest=index_digest, time=self._tools.now())

    def _resolve(self, text: str, source: ImageSource, index: Index, named: Digest | None) -> AcceptedManifest:
        """The manifest for this platform, following indexes inside indexes; or the one with the digest `named`."""
        for _ in range(INDEX_DEPTH):
            entry = choose_instance(index, self._wanted).descriptor if named is None else Descriptor("", named, 0)
            try:
                raw = source.manifest(entry.digest)
            except ImageAbsentError as error:  # the image is there, its index names more than there is
                raise error.of_instance() from error
            where = f"{text}: manifest {entry.digest}"
            require_content(raw.data, entry.digest, where)
            announced = raw.media_type or entry.media_type
            parsed = parse_manifest(raw.data, announced, where)
            if isinstance(parsed, Manifest):
                return AcceptedManifest(parsed, raw.data, digest_of(raw.data), None, entry=entry.digest)
            index = parsed
        raise InvalidDocumentError(
            f"{text}: manifest", f"indexes nested deeper than {INDEX_DEPTH}", code=ErrorCode.LIMIT_EXCEEDED
        )


class AcceptedManifest(NamedTuple):
    """A manifest that the policy accepted, itself or through its index, which names it by the digest `entry`.

    `digest` is its sha256, by which manifests are compared and signed, whatever algorithm an index uses.
    """

    manifest: Manifest
    data: bytes
    digest: Digest
    index_digest: Digest | None
    entry: Digest | None = None
    signed_by: frozenset[str] = frozenset()  # digests of referrers whose bundles the policy took for signatures


def _signature_places(source: ImageSource, bundles: bool) -> Sequence[str]:
    try:
        referrers = source.referrer_source() if bundles else None
        return (*source.signature_places(), *(referrers.bundle_places() if referrers is not None else ()))
    except CipError:
        return ()  # the same file refused the signatures already, and said why


def _find_bundles(source: ImageSource, digest: Digest, signatures: _Once[Sequence[RawSignature]]) -> FoundBundles:
    """The bundles of the manifest `digest`, where configuration has them looked for (bundles.md 1.1)."""
    attached = any(isinstance(each, SigstoreSignature) for each in signatures())
    referrers = source.referrer_source()
    listed = referrers.bundles(digest, attached=attached) if referrers is not None else None
    return rooms.find_bundles(listed, digest) if listed is not None else FoundBundles()


def _bundle_rules(source: ImageSource, settings: Settings) -> BundleRules:
    """What registries.d says under the name that was asked for, whichever mirror served the image."""
    if source.identity.docker is None:
        return BundleRules()
    from .hostconfig.registriesd import load_registries_d

    said = load_registries_d(settings).bundle_trust(source.identity.docker)
    return BundleRules(said.by_digest, said.file, said.trusted_root, said.scope)


def _signing_referrers(decision: Decision, judged: UnverifiedImage) -> frozenset[str]:
    """Which referrers of the accepted manifest hold a bundle that the policy accepted as its signature."""
    accepted = {each.bundle.digest for each in decision.signatures if each.accepted and each.bundle is not None}
    bundles = judged.bundles().bundles if accepted else ()
    return frozenset(each.referrer for each in bundles if each.digest in accepted)


class _Reliable:
    """Runs gpgv once it has shown that it can be relied on; what did not pass is asked again the next time."""

    def __init__(self, run_gpgv: RunGpgv) -> None:
        self._run_gpgv = run_gpgv
        self._passed = False

    def __call__(self, keyring: bytes, message: bytes) -> GpgvOutcome:
        if not self._passed:
            rooms.require_reliable(self._run_gpgv)
            self._passed = True
        return self._run_gpgv(keyring, message)


def _timer(seconds: float, option: str, phase: Phase | None = None) -> Callable[[], None]:
    """Raises SourceError once so many seconds are over: a registry or an archive may have very much to look at."""
    ends = time.monotonic() + seconds

    def require_time() -> None:
        if time.monotonic() >= ends:
            why = f"not done within the {seconds:g} s of {option}"
            raise SourceError(why, code=ErrorCode.TIMEOUT, phase=phase)

    return require_time


class _Once(Generic[T]):
    """Calls a function at most once and keeps its result: all requirements see the same signatures."""

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch = fetch
        self._result: T | None = None
        self.asked = False

    def __call__(self) -> T:
        self.asked = True
        if self._result is None:
            self._result = self._fetch()
        return self._result


def _require_sha256(digest: Digest) -> None:
    """Images of registries are named by sha256 alone, because registries serve no other (decisions.md section 10)."""
    if digest.algorithm != "sha256":
        raise InvalidDigestError(
            str(digest), "a manifest can only be named by sha256", code=ErrorCode.DIGEST_UNSUPPORTED
        )
