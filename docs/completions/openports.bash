# Completion of openports for bash, from the table of flags; tested.

_openports() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local command=serve commands="serve scan healthcheck" word flags
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            serve|scan|healthcheck) command=$word; commands=; break ;;
        esac
    done
    case $command in
        serve) flags="--listen --timeout --max-scan-time --max-scans --max-scans-per-client --max-connections --max-in-flight --drain-delay --drain-timeout --allow --deny --host --token-file --trust-proxy --log-level --log-format --resolv-conf --hosts --help --version" ;;
        scan) flags="--targets --shard --exclude --timeout --retries --deadline --rate --concurrency --family --all-addresses --json --ndjson --max-in-flight --allow --deny --log-level --log-format --resolv-conf --hosts --help --version" ;;
        healthcheck) flags="--listen --help --version" ;;
    esac
    case $previous in
        --allow|--concurrency|--deadline|--deny|--drain-delay|--drain-timeout|--exclude|--host|--listen|--max-connections|--max-in-flight|--max-scan-time|--max-scans|--max-scans-per-client|--rate|--retries|--shard|--timeout|--trust-proxy) COMPREPLY=(); return ;;
        --family) COMPREPLY=($(compgen -W "4 6" -- "$current")); return ;;
        --log-level) COMPREPLY=($(compgen -W "error warn info debug" -- "$current")); return ;;
        --log-format) COMPREPLY=($(compgen -W "logfmt json" -- "$current")); return ;;
        --hosts|--resolv-conf|--targets|--token-file) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    case $current in
        -*) COMPREPLY=($(compgen -W "$flags" -- "$current")) ;;
        *)
            COMPREPLY=($(compgen -W "$commands" -- "$current"))
            if [[ $command == scan ]]; then
                COMPREPLY+=($(compgen -A hostname -- "$current"))
            fi
            ;;
    esac
}

complete -F _openports openports
