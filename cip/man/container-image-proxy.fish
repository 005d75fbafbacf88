# SPDX-License-Identifier: Apache-2.0
# fish completion for container-image-proxy

function __container_image_proxy_image
    set -l current (commandline -ct)
    switch $current
        case 'oci:*' 'oci-archive:*' 'dir:*' 'docker-archive:*' 'tarball:*'
            set -l parts (string split -m 1 : -- $current)
            for path in (__fish_complete_path $parts[2])
                echo $parts[1]:$path
            end
        case '*'
            printf '%s\n' docker:// oci: oci-archive: dir: docker-archive: docker-daemon: containers-storage: tarball:
            if not __fish_seen_subcommand_from explain fetch experimental-image-proxy
                printf '%s\n' explain fetch experimental-image-proxy
            end
    end
end

set -l c complete -c container-image-proxy
$c -f -a '(__container_image_proxy_image)'
$c -l sockfd -x -d 'serve the socket that is descriptor N'
$c -l quiet -s q -d 'write nothing to stderr'
$c -l version -s v -d 'print the version'
$c -l help -s h -d 'print a summary of the options'
$c -l debug -d 'the same as --log-level=debug'
$c -l log-level -x -a 'debug info warning error' -d 'what is written to stderr'
$c -l json -d 'explain: print JSON'
$c -l all -d 'fetch: every platform of an index'
$c -l policy -r -F -d 'signature policy instead of policy.json of the host'
$c -l insecure-policy -d 'accept any image, read no policy'
$c -l require-signed -d 'refuse images that no signature was verified for'
$c -l authfile -r -F -d 'credentials'
$c -l creds -x -d 'credentials for the registry'
$c -l username -x -d 'user for the registry, with --password'
$c -l password -x -d 'password for the registry, with --username'
$c -l registry-token -x -d 'bearer token for the registry'
$c -l no-creds -d 'be anonymous'
$c -l cert-dir -x -a '(__fish_complete_directories)' -d 'authorities and client certificates'
$c -l tls-verify -d 'verify TLS; =false also allows plain HTTP'
$c -l registries-conf -r -F -d 'instead of registries.conf of the host'
$c -l registries.d -x -a '(__fish_complete_directories)' -d 'where signatures are found'
$c -l override-os -x -d 'choose this platform from an index'
$c -l override-arch -x -d 'choose this platform from an index'
$c -l override-variant -x -d 'choose this platform from an index'
$c -l require-platform -d 'refuse an image whose config is for another platform'
$c -l tmpdir -x -a '(__fish_complete_directories)' -d 'for compressed archives'
$c -l tmp-limit -x -d 'of all temporary files'
$c -l shared-blob-dir -x -a '(__fish_complete_directories)' -d 'oci: where the blobs are'
$c -l daemon-host -x -d 'docker-daemon: its socket'
$c -l local-source -x -d 'docker: take blobs from here first'
$c -l offline -d 'docker: use --local-source only'
$c -l connect-timeout -x -d 'to connect'
$c -l idle-timeout -x -d 'without a byte'
$c -l open-timeout -x -d 'to open an image'
$c -l stall-timeout -x -d 'without progress of a blob'
$c -l min-rate -x -d 'bytes a second below which a blob has stalled'
$c -l deadline -x -d 'for one request, all in all'
$c -l retry-times -x -d 'repeats per endpoint'
$c -l retry-delay -x -d 'fixed delay before a repeat'
$c -l max-rate -x -d 'bytes a second from the network'
$c -l max-bytes -x -d 'bytes from the network in all'
$c -l connections -x -d 'connections per registry'
$c -l read-ahead -x -d 'bytes per blob while the parent is busy'
$c -l segments -x -d 'connections for one large blob'
$c -l partial-dir -x -a '(__fish_complete_directories)' -d 'keep what arrived of large blobs here'
$c -l partial-limit -x -d 'of all that is kept there'
$c -l audit-fd -x -d 'write trust decisions to this descriptor'
$c -l require-audit -d 'serve nothing whose decision was not recorded'
$c -l events-fd -x -d 'write progress to this descriptor'
$c -l journal -d 'tell the systemd journal of faults and decisions'
$c -l sandbox -x -a 'auto off' -d 'confine the process'
$c -l require-sandbox -d 'fail unless confined'
$c -l user-agent-prefix -x -d 'in front of the user agent'
$c -l command-timeout -x -d 'accepted, without effect'
$c -l decryption-key -x -d 'accepted, without effect'
$c -l tls-details -r -F -d 'accepted, without effect'
