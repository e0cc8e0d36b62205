#!/bin/sh
# The logs of a sweep's pods to one line for each target: merge.sh FILE…
#
# Each pod probed some ports of a target, so open ports and counts add up. Lines that are no JSON
# are stderr's. `sort` brings a target's parts together, so that any number of them is merged in
# little memory. Needs jq.
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
        # The null after the last part lets the last target out.
        foreach ((inputs | split("\t")[1] | fromjson), null) as $part ({};
            if $part != null and .now.domain == $part.domain
            then {now: (.now | with($part))}
            else {out: .now, now: (if $part == null then null else whole($part) | with($part) end)}
            end;
            .out // empty)'
