# Completion of openports for bash, from the table of flags; tested.

_openports() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local command=serve word flags
    local commands="serve scan healthcheck help completions man licenses"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            serve|scan|healthcheck) command=$word; commands=; break ;;
            help) commands="serve scan healthcheck"; break ;;
            completions) commands="bash zsh fish"; break ;;
            man|licenses) commands=; break ;;
        esac
    done
    case $command in
        serve) flags="--listen --timeout --technique --max-scan-time --max-scans --max-scans-per-client --max-connections --max-in-flight --drain-delay --drain-timeout --allow --deny --host --token-file --trust-proxy --log-level --log-format --resolv-conf --hosts --help --version" ;;
        scan) flags="--targets --ports --exclude-targets --exclude-targets-from --resume --shard --exclude --timeout --technique --retries --deadline --rate --concurrency --family --all-addresses --source --format --json --ndjson --include --open --output --max-in-flight --allow --deny --log-level --log-format --resolv-conf --hosts --help --version -p -o -4 -6" ;;
        healthcheck) flags="--listen --help --version" ;;
    esac
    case $previous in
        --allow|--concurrency|--deadline|--deny|--drain-delay|--drain-timeout|--exclude|--exclude-targets|--host|--listen|--max-connections|--max-in-flight|--max-scan-time|--max-scans|--max-scans-per-client|--ports|--rate|--retries|--shard|--source|--technique|--timeout|--trust-proxy) COMPREPLY=(); return ;;
        --family) COMPREPLY=($(compgen -W "4 6" -- "$current")); return ;;
        --include) COMPREPLY=($(compgen -W "closed filtered unreachable services" -- "$current")); return ;;
        --log-level) COMPREPLY=($(compgen -W "error warn info debug" -- "$current")); return ;;
        --log-format) COMPREPLY=($(compgen -W "logfmt json" -- "$current")); return ;;
        --format) COMPREPLY=($(compgen -W "table json ndjson text host-port csv xml greppable" -- "$current")); return ;;
        --exclude-targets-from|--hosts|--output|--resolv-conf|--resume|--targets|--token-file) COMPREPLY=($(compgen -f -- "$current")); return ;;
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
