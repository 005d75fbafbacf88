# SPDX-License-Identifier: Apache-2.0
"""The core: an image reference becomes an `Image`.

Here alone bytes and belief meet: the source brings the top manifest, `trust` accepts it or the chosen instance, and
what it says it accepted is held against what would be served. Only then the image exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import log, rooms
from .content import require_content, start_timer, timed, undo_on_error
from .errors import CipError, ErrorCode, ImageAbsentError, InvalidDocumentError, UnsupportedError, strip_reference
from .events import Events
from .image import AcceptedManifest, Image
from .model.descriptor import Descriptor, Digest, Platform, digest_of, require_sha256
from .model.manifest import Index, Manifest, parse_manifest
from .model.reference import Transport, parse_image_reference
from .settings import Settings
from .sources.base import ImageSource
from .transports import SourceOpener
from .trust.evaluation import (
    Audit,
    Decision,
    ImageRejectedError,
    InstanceUnavailableError,
    require_accepted,
    require_complete,
    require_index_or_instance,
)
from .trust.policy import GpgvOutcome, Policy, TrustTools, UnverifiedImage

INDEX_DEPTH = 4  # indexes inside indexes (decisions.md section 1)


class ImageOpener:
    """Opens images for one process: one policy, one set of settings, one pool of connections."""

    def __init__(
        self,
        settings: Settings,
        sources: SourceOpener,
        tools: TrustTools,
        load_policy: Callable[[], Policy],
        *,
        events: Events,
        audit: Audit,
    ) -> None:
        self._settings = settings
        self.sources = sources

        def run_reliable(keyring: bytes, message: bytes) -> GpgvOutcome:
            rooms.require_reliable(tools.run_gpgv)
            return tools.run_gpgv(keyring, message)

        self._tools = TrustTools(tools.read_file, run_reliable, tools.now)
        self._load_policy = load_policy
        self.events = events
        self._audit = audit
        self.policy: Policy | None = None  # until `prepare` has read it
        self._wanted: tuple[Platform, ...] = ()

    def wanted_platforms(self) -> tuple[Platform, ...]:
        """What this host wants of an index, most wanted first."""
        if not self._wanted:
            from .hostconfig.machine import host_platforms

            self._wanted = host_platforms(self._settings.platform)
        return self._wanted

    def before_confinement(self) -> Policy | None:
        """Look at what cannot be looked at later; the policy, None where nobody needed it yet."""
        self.wanted_platforms()
        return self.policy

    def prepare(self) -> None:
        """Read what every image needs: policy and credential flags. A failed call may be repeated.

        Raises UsageError for contradicting flags, ConfigurationError (policy-missing, policy-invalid).
        """
        self._settings.credentials.explicit()
        if self.policy is None:
            self.policy = self._load_policy()

    def open(self, text: str, instance: Digest | None = None) -> Image:
        """The image that `text` names, once the policy accepts it.

        Of an index the instance for the platform, or the one with the digest `instance`, which must be from the index.

        Raises InvalidReferenceError, UnsupportedError, NotFoundError, SourceError, PolicyRejectedError,
        InvalidDocumentError; nothing stays open then.
        """
        with timed(start_timer(self._settings.times.opening, "--open-timeout and --deadline")):
            self.prepare()
            try:
                image = self._open(text, instance)
            except CipError as error:
                self.events.emit("failed", image=strip_reference(text), error=error)
                raise
        manifest = image.accepted.manifest
        if self._settings.decryption_keys and any(each.media_type.endswith("+encrypted") for each in manifest.layers):
            log.warning("%s: --decryption-key is ignored: encrypted layers are served as they are", text)
        self.events.emit(
            "plan",
            image=text,
            layers=len(manifest.layers),
            bytes=manifest.config.size + sum(layer.size for layer in manifest.layers),
        )
        return image

    def _open(self, text: str, instance: Digest | None) -> Image:
        source = self.sources.open(parse_image_reference(text))
        with undo_on_error(source.close):
            accepted = self._accept(text, source, instance)
            image = Image(text, source, accepted, self.events, self.wanted_platforms if instance is None else tuple)
            image.blob_seconds = self._settings.times.deadline
            if self._settings.platform.required:
                image.require_platform()
            if source.identity.transport is Transport.DOCKER:
                limits = self._settings.transfer
                image.ahead = limits.read_ahead, limits.connections
            return image

    def close(self) -> None:
        """Release connections."""
        self.sources.close()

    def _accept(self, text: str, source: ImageSource, named_instance: Digest | None) -> AcceptedManifest:
        """The top manifest or the instance chosen from it, accepted by the policy (signatures.md section 6)."""
        top = source.manifest(None)
        digest = digest_of(top.data)
        named = source.identity.docker.digest if source.identity.docker else None
        if named is not None:
            require_sha256(named)
            require_content(top.data, named, f"{text}: manifest")
        unverified = self._unverified(source, top.data, digest, None)

        def decide(policy: Policy, signed: bool) -> Decision:
            return require_accepted(policy, unverified, self._tools, require_signed=signed)

        try:
            parsed = parse_manifest(top.data, top.media_type, f"{text}: manifest")
        except (InvalidDocumentError, UnsupportedError):
            # An image that may not be used is refused for that, not for what it looks like.
            self._judge(text, source, [digest], None, decide)
            raise
        if isinstance(parsed, Manifest):
            decision = self._judge(text, source, [digest], None, decide)
            return AcceptedManifest(parsed, top.data, digest, None, signed_by=_signing_referrers(decision, unverified))
        return self._accept_index(text, source, parsed, digest, unverified, named_instance)

    def _accept_index(
        self,
        text: str,
        source: ImageSource,
        index: Index,
        digest: Digest,
        unverified: UnverifiedImage,
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
            decision = require_index_or_instance(policy, unverified, instance, self._tools, require_signed=signed)
            try:
                if not chosen:
                    instance()
            except CipError as error:
                raise InstanceUnavailableError(decision, error) from error
            return decision

        decision = self._judge(text, source, digests, digest, decide)
        accepted = judged[1] if decision.requirements[-1].subject == "instance" else unverified
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
        assert self.policy is not None  # `prepare` ran
        signed = self._settings.policy.require_signed
        try:
            decision = decide(self.policy, signed)
        except ImageRejectedError as error:
            self._record(text, digests[-1], index_digest, error.decision)
            raise
        except InstanceUnavailableError as unavailable:
            self._record(text, digests[-1], index_digest, unavailable.decision)
            if not unavailable.decision.accepted:
                log.warning("%s: the policy refuses the index, and no instance of it can be judged instead", text)
            raise unavailable.cause from unavailable
        require_complete(decision, self.policy, source.identity, digests, require_signed=signed)
        self._record(text, digests[-1], index_digest, decision)
        return decision

    def _unverified(self, source: ImageSource, data: bytes, digest: Digest, instance: Digest | None) -> UnverifiedImage:
        image = UnverifiedImage(source.identity, data)
        if self.policy is not None and not any(each.verifies for each in self.policy.requirements()):
            return image  # no requirement will ask
        return rooms.with_signatures(image, source, digest, instance, self._settings)

    def _record(self, text: str, digest: Digest, index_digest: Digest | None, decision: Decision) -> None:
        self.events.emit("policy", image=text, accepted=decision.accepted, scope=decision.scope)
        self._audit(decision, reference=text, digest=digest, index_digest=index_digest, time=self._tools.now())

    def _resolve(self, text: str, source: ImageSource, index: Index, named: Digest | None) -> AcceptedManifest:
        """The manifest for this platform, following indexes inside indexes; or the one with the digest `named`."""
        for _ in range(INDEX_DEPTH):
            from .model.platform import choose_instance

            wanted = self.wanted_platforms
            entry = choose_instance(index, wanted()).descriptor if named is None else Descriptor("", named, 0)
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
        why = f"indexes nested deeper than {INDEX_DEPTH}"
        raise InvalidDocumentError(f"{text}: manifest", why, code=ErrorCode.LIMIT_EXCEEDED)


def _signing_referrers(decision: Decision, judged: UnverifiedImage) -> frozenset[str]:
    """Which referrers of the accepted manifest hold a bundle that the policy accepted as its signature."""
    accepted = {each.bundle.digest for each in decision.signatures if each.accepted and each.bundle is not None}
    bundles = judged.bundles().bundles if accepted and judged.bundles is not None else ()
    return frozenset(each.referrer for each in bundles if each.digest in accepted)
