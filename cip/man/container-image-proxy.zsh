#compdef container-image-proxy
# SPDX-License-Identifier: Apache-2.0
# zsh completion for container-image-proxy

_container_image_proxy_image() {
    if compset -P '(oci|oci-archive|dir|docker-archive|tarball):'; then
        _files
    else
        compadd -S '' docker:// oci: oci-archive: dir: docker-archive: docker-daemon: containers-storage: tarball:
        compadd explain fetch experimental-image-proxy
    fi
}

_arguments \
    '--sockfd=[serve the socket that is descriptor N (default; stdin and stdout)]:n:' \
    '--quiet[write nothing to stderr]' \
    '--version[print the version, and what this copy has]' \
    '--help[print this text; --help all prints every option]' \
    '--debug[the same as --log-level=debug]' \
    '--log-level=[debug, info, warning or error (default; warning)]:level:(debug info warning error)' \
    '--json[explain; print JSON]' \
    '--all[fetch; every platform of an index]' \
    '--policy=[signature policy instead of the hosts policy.json]:file:_files' \
    '--insecure-policy[accept any image, read no policy]' \
    '--require-signed[refuse images that no signature was verified for]' \
    '--authfile=[credentials, instead of the places that podman uses]:file:_files' \
    '--creds=[credentials for the registry]:userpass:' \
    '--username=[user for the registry, with --password]:user:' \
    '--password=[password for the registry, with --username]:pass:' \
    '--registry-token=[bearer token for the registry]:token:' \
    '--no-creds[be anonymous]' \
    '--cert-dir=[CA (*.crt) and client certificates (*.cert, *.key)]:dir:_files -/' \
    '--tls-verify=-[verify TLS; =false also allows plain HTTP]::value:(true false)' \
    '--registries-conf=[instead of the hosts registries.conf]:file:_files' \
    '--registries.d=[where signatures are found, instead of the hosts]:dir:_files -/' \
    '--override-os=[choose this platform from an index]:os:' \
    '--override-arch=[choose this platform from an index]:arch:' \
    '--override-variant=[choose this platform from an index]:variant:' \
    '--require-platform[refuse an image whose config is for another platform]' \
    '--tmpdir=[for compressed archives (default; /var/tmp)]:dir:_files -/' \
    '--tmp-limit=[of all temporary files]:size:' \
    '--shared-blob-dir=[oci; where the blobs are]:dir:_files -/' \
    '--daemon-host=[docker-daemon; its socket]:url:' \
    '*--local-source=[docker; take blobs from here first (repeatable)]:ref:' \
    '--offline[docker; use --local-source only, never the network]' \
    '--connect-timeout=[to connect (15)]:time:' \
    '--idle-timeout=[without a byte (20)]:time:' \
    '--open-timeout=[to open an image (180)]:time:' \
    '--stall-timeout=[without progress of a blob, over all places (110)]:time:' \
    '--min-rate=[bytes a second below which a blob has stalled (1024)]:size:' \
    '--deadline=[for one request, all in all (0; none)]:time:' \
    '--retry-times=[repeats per place (4)]:n:' \
    '--retry-delay=[fixed delay before a repeat (doubles from 0.5)]:time:' \
    '--max-rate=[bytes a second from the network (0; no limit)]:size:' \
    '--max-bytes=[bytes from the network in all (0; no limit)]:size:' \
    '--connections=[connections per registry (64)]:n:' \
    '--read-ahead=[per blob while the parent is busy (8M, 0; none)]:size:' \
    '--segments=[connections for one large blob, where one is slow (1)]:n:' \
    '--partial-dir=[keep what arrived of large blobs here, for the next run]:dir:_files -/' \
    '--partial-limit=[of all that is kept there (4G, 0; no limit)]:size:' \
    '--audit-fd=[write trust decisions to this descriptor, as JSON lines]:n:' \
    '--require-audit[serve no image whose decision was not written to --audit-fd]' \
    '--events-fd=[write progress to this descriptor, as JSON lines]:n:' \
    '--journal[tell the systemd journal of faults and decisions]' \
    '--sandbox=[auto or off (default; auto)]:mode:(auto off)' \
    '--require-sandbox=-[fail unless confined; process, write or full]::level:(process write full)' \
    '--user-agent-prefix=[in front of the user agent]:text:' \
    '--command-timeout=[accepted, without effect]:time:' \
    '*--decryption-key=[accepted, without effect]:key:' \
    '--tls-details=[accepted, without effect]:file:_files' \
    '*:image or command:_container_image_proxy_image'
