#!/bin/sh
# Merges the logs of a sweep's pods into one line for each target. Usage: merge.sh FILE…
#
# Each pod has probed some ports of a target, so open ports and counts are added. Lines that are not
# JSON are from stderr and are skipped. `sort` puts the parts of a target next to each other, so
# that merging any number of them needs little memory. Needs jq.
set -eu

jq -rR 'fromjson? | objects | select(.event == "end" or .event == "failed")
    | "\(.domain)\t\(tojson)"' "$@" |
    LC_ALL=C sort |
    jq -nRc '
        def whole($part):
            {domain: $part.domain, open_ports: [], counts: {}, complete: true, causes: []};
        def with($part):
            if $part.event == "failed" then
                .complete = false | .causes |= (. + [$part.cause] | unique)
            else
                .address //= $part.address
                | .open_ports |= (. + $part.open_ports | unique)
                | reduce ($part.counts | to_entries[]) as $it (.; .counts[$it.key] += $it.value)
                | .complete = (.complete and $part.complete)
            end;
        # The null after the last part ends the last target.
        foreach ((inputs | split("\t")[1] | fromjson), null) as $part ({};
            if $part != null and .now.domain == $part.domain
            then {now: (.now | with($part))}
            else {out: .now, now: (if $part == null then null else whole($part) | with($part) end)}
            end;
            .out // empty)'
