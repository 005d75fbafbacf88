# SPDX-License-Identifier: Apache-2.0
# bash completion for container-image-proxy

_container_image_proxy() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} option= transport=
    local options="
        --sockfd --quiet --version --help --debug --log-level --json --all --policy --insecure-policy
        --require-signed --authfile --creds --username --password --registry-token --no-creds
        --cert-dir --tls-verify --registries-conf --registries.d --override-os --override-arch
        --override-variant --require-platform --tmpdir --tmp-limit --shared-blob-dir --daemon-host --local-source --offline
        --connect-timeout --idle-timeout --open-timeout --stall-timeout --min-rate --deadline
        --retry-times --retry-delay --max-rate --max-bytes --connections --read-ahead
        --segments --partial-dir --partial-limit --audit-fd --require-audit --events-fd --journal --sandbox
        --require-sandbox --user-agent-prefix --command-timeout --decryption-key --tls-details
    "
    COMPREPLY=()
    # `=` and `:` are words of their own here (COMP_WORDBREAKS).
    case $current,$before in
        =,*) option=$before current= ;;
        *,=) option=${COMP_WORDS[COMP_CWORD-2]} ;;
        :,*) transport=$before current= ;;
        *,:) transport=${COMP_WORDS[COMP_CWORD-2]} ;;
        *,--*) option=$before ;;
    esac
    case $option in
        --policy|--authfile|--registries-conf|--tls-details)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return ;;
        --cert-dir|--registries.d|--tmpdir|--partial-dir|--shared-blob-dir)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            return ;;
        --log-level) mapfile -t COMPREPLY < <(compgen -W "debug info warning error" -- "$current"); return ;;
        --sandbox) mapfile -t COMPREPLY < <(compgen -W "auto off" -- "$current"); return ;;
        --tls-verify) [[ $before == = || ${COMP_WORDS[COMP_CWORD]} == = ]] \
            && { mapfile -t COMPREPLY < <(compgen -W "true false" -- "$current"); return; } ;;
        --require-sandbox) [[ $before == = || ${COMP_WORDS[COMP_CWORD]} == = ]] \
            && { mapfile -t COMPREPLY < <(compgen -W "process write full" -- "$current"); return; } ;;
    esac
    case $transport in
        oci|oci-archive|dir|docker-archive|tarball)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return ;;
        docker) [[ -z $current ]] && { compopt -o nospace; COMPREPLY=(//); }; return ;;
        ?*) return ;;
    esac
    case $current in
        -*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "explain fetch experimental-image-proxy docker:// oci: oci-archive: \
            dir: docker-archive: docker-daemon: containers-storage: tarball:" -- "$current") ;;
    esac
    [[ ${COMPREPLY[0]-} == *[:/] ]] && compopt -o nospace
}

complete -F _container_image_proxy container-image-proxy
