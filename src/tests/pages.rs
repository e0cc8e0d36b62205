//! The manual and the shell completions, which are generated from the table of flags.
//!
//! This file is part of the module `config` and is compiled for tests only. The pages are stored in
//! `docs/`, and a test fails if they do not match the table; `OPENPORTS_PAGES=write cargo test
//! pages` writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::batch::options::Format;
use crate::config::flag::{Arity, Flag};
use crate::config::flags::FLAGS;
use crate::config::help::{ReferencePage, Subcommand};

#[test]
fn the_stored_pages_match_the_table_of_flags() {
    let wants_writing = std::env::var_os("OPENPORTS_PAGES").is_some_and(|value| value == "write");
    for (name, page) in [
        ("openports.1", manual()),
        ("completions/openports.bash", bash()),
        ("completions/_openports", zsh()),
        ("completions/openports.fish", fish()),
    ] {
        let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
        if wants_writing {
            std::fs::write(&path, &page).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        let differing = found.lines().zip(page.lines()).find(|(is, should)| is != should);
        let hint = "regenerate it with OPENPORTS_PAGES=write cargo test pages";
        assert!(found == page, "docs/{name} is out of date at {differing:?}; {hint}");
    }
}

#[test]
fn completions_contain_every_format_and_every_command() {
    let commands = ReferencePage::ALL.map(|(name, ..)| name);
    for name in Format::ALL.map(|(name, ..)| name).into_iter().chain(commands) {
        for page in [bash(), zsh(), fish()] {
            assert!(page.contains(name), "{name}");
        }
    }
}

/// Crates of Cargo.lock that are linked into no binary: they run during a build or a test, or
/// belong to systems that are not supported. `.ci/supply/licenses` finds the linked crates.
const NOT_LINKED: [&str; 15] = [
    "adler2",
    "domain-macros",
    "jiff-static",
    "log",
    "miniz_oxide",
    "portable-atomic",
    "portable-atomic-util",
    "proc-macro2",
    "quote",
    "serde_derive",
    "syn",
    "unicode-ident",
    "wasi",
    "windows-link",
    "windows-sys",
];

#[test]
fn the_licenses_match_the_crates_in_cargo_lock() {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let (lock, licenses) = (read("Cargo.lock"), read("docs/licenses.txt"));
    let mut lines = lock.lines();
    let mut linked = BTreeSet::new();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("name = ") else { continue };
        let version = lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap();
        let (name, version) = (name.trim_matches('"'), version.trim_matches('"'));
        if !NOT_LINKED.contains(&name) {
            linked.insert(format!("{name} {version}"));
        }
    }
    let noted: BTreeSet<String> = licenses
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.ends_with(')'))
        .filter_map(|line| line.split_once(" (").map(|(name, _)| name.to_owned()))
        .filter(|name| name != "musl")
        .collect();
    assert_eq!(noted, linked, "regenerate docs/licenses.txt with .ci/supply/licenses");
}

fn flags_of(command: Subcommand) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |flag| flag.commands.contains(&command))
}

/// The possible values of a flag, if they are a few words.
fn choices(flag: &Flag) -> Option<String> {
    let words = match flag.metavar {
        "FORMAT" if flag.name == "format" => Format::ALL.map(|(name, ..)| name).join(" "),
        "LIST" => "closed filtered unreachable services".to_owned(),
        "LEVEL" => "error warn info debug".to_owned(),
        "FORMAT" => "logfmt json".to_owned(),
        "4|6" => "4 6".to_owned(),
        _ => return None,
    };
    Some(words)
}

fn manual() -> String {
    let mut page = String::from(MANUAL_HEAD);
    for (name, command, about) in Subcommand::ALL {
        write!(page, ".SS {name}\n{}.\n", roff(about)).unwrap();
        for flag in flags_of(command) {
            let (name, help) = (roff(flag.name), roff(flag.help));
            let value = match flag.arity {
                Arity::Switch => String::new(),
                Arity::Once | Arity::List => format!(" \\fI{}\\fR", flag.metavar),
            };
            let (variable, default) = (flag.variable(), roff(&flag.default.text()));
            write!(page, ".TP\n\\fB\\-\\-{name}\\fR{value}\n{help}.\n").unwrap();
            writeln!(page, "Variable \\fB{variable}\\fR, default {default}.").unwrap();
        }
    }
    page.push_str(".SH FORMATS OF A SCAN\n");
    for (name, _, about) in Format::ALL {
        write!(page, ".TP\n.B {}\n{}.\n", roff(name), roff(about)).unwrap();
    }
    page.push_str(MANUAL_TAIL);
    page
}

fn roff(text: &str) -> String {
    assert!(!text.starts_with(['.', '\'']) && !text.contains('\\'), "{text:?} needs no escaping");
    text.replace('-', "\\-")
}

const MANUAL_HEAD: &str = concat!(
    ".TH OPENPORTS 1 \"\" \"openports ",
    env!("CARGO_PKG_VERSION"),
    "\" \"User Commands\"\n",
    r#".SH NAME
openports \- find a host's open TCP ports
.SH SYNOPSIS
.B openports
[\fBserve\fR] [\fIFLAG\fR]...
.br
.B openports scan
[\fIFLAG\fR]... \fITARGET\fR... [\fIPORTS\fR]
.br
.B openports scan
[\fIFLAG\fR]... \fB\-\-targets\fR \fIFILE\fR [\fIPORTS\fR]
.br
.B openports healthcheck
[\fIFLAG\fR]... [\fIADDRESS:PORT\fR]
.br
.B openports help
[\fICOMMAND\fR]
.br
.B openports completions bash\fR|\fBzsh\fR|\fBfish
.br
.B openports man
.br
.B openports licenses
.SH DESCRIPTION
.B openports
connects to each requested port and reports which are open, over HTTP or on the command line.
It needs no privileges, except for \fB\-\-technique syn\fR.
.PP
A \fITARGET\fR is a name, an address, \fIHOST\fR:\fIPORT\fR, [\fIADDRESS\fR]:\fIPORT\fR, a network
(10.0.0.0/24, 2001:db8::/120) or a range (10.0.0.1\-254, 10.0.0.1\-10.0.1.9). Each target and port
is scanned once, however often it is listed.
.PP
\fIPORTS\fR is a list such as 22,80,8000\-8100,60000\- or top:100; without it every port is scanned.
A list of targets has one on each line and, if it has ports of its own, a blank and these. Empty
lines, a byte order mark and text after # are ignored.
.PP
\fB\-p\fR \fIPORTS\fR is short for \fB\-\-ports\fR, \fB\-o\fR \fIFILE\fR for \fB\-\-output\fR,
\fB\-4\fR and \fB\-6\fR for \fB\-\-family\fR 4 and 6.
.SH COMMANDS AND FLAGS
A flag overrides its variable, and a variable overrides the default; an empty variable counts as not
set.
A variable of a flag that may be repeated holds several values, separated by commas;
that of a flag without a value holds true or false.
A duration is a number and its unit: 250ms, 2s, 1.5s, 5m.
"#
);

const MANUAL_TAIL: &str = r#".SH SHARDS
With \fB\-\-shard\fR \fII/N\fR, N machines with the same targets in the same order, the same ports
and exclusions, and another I each together scan each port of each target exactly once.
.SH EXIT STATUS
.TP
.B 0
Success. After a scan every port of every target has its state, or the reader of the output closed
the pipe, as
.BR head (1)
does.
.TP
.B 1
Something was not scanned completely, or a file could not be read or written; or the health check
failed.
.TP
.B 64
Invalid usage.
.TP
.B 71
The system refused what a service needs to start, or raw packets for \fB\-\-technique syn\fR.
.TP
.B 74
A help text, the version or a page of \fBcompletions\fR, \fBman\fR or \fBlicenses\fR could not be
written.
.SH SIGNALS
At SIGTERM, SIGINT or SIGHUP a service finishes its running scans and ends; a scan prints its
results so far and ends. A second signal ends either at once.
.SH ENVIRONMENT
.TP
.B NO_COLOR
If set and not empty, no table has colours.
.TP
.BR LISTEN_PID ", " LISTEN_FDS
Set by
.BR systemd (1):
the listeners of a service, in place of \fBOPENPORTS_LISTEN\fR and of the default; see
.BR sd_listen_fds (3).
.TP
.B NOTIFY_SOCKET
Set by
.BR systemd (1):
where a service reports that it is ready and that it stops; see
.BR sd_notify (3).
.SH FILES
.TP
.I /etc/services
Names of services, read at the start; ports without a name in it have that of a built-in list.
.SH EXAMPLES
.nf
openports scan localhost
openports scan \-\-json example.com 1\-1024
openports scan 192.0.2.7 10.0.0.0/24 \-p 22,80,443 \-\-open
openports scan \-\-targets hosts.txt \-\-format xml \-o scan.xml
openports scan \-\-targets hosts.txt \-\-shard 2/3 22,80,443
openports serve \-\-listen [::]:8080
openports serve \-\-listen unix:/run/openports.sock
.fi
"#;

fn bash() -> String {
    let mut page = String::from(BASH_HEAD);
    for (name, command, _) in Subcommand::ALL {
        let mut flags: Vec<String> =
            flags_of(command).map(|flag| format!("--{}", flag.name)).collect();
        flags.extend(["--help".to_owned(), "--version".to_owned()]);
        if command == Subcommand::Scan {
            flags.extend(["-p", "-o", "-4", "-6"].map(str::to_owned));
        }
        writeln!(page, "        {name}) flags=\"{}\" ;;", flags.join(" ")).unwrap();
    }
    page.push_str("    esac\n    case $previous in\n");
    for (reply, names) in bash_replies() {
        let names: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
        writeln!(page, "        {}) COMPREPLY=({reply}); return ;;", names.join("|")).unwrap();
    }
    page.push_str(BASH_TAIL);
    page
}

/// The shell code that completes the value of a flag, and the flags that it applies to.
fn bash_replies() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut replies: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for flag in FLAGS.iter().filter(|flag| flag.arity != Arity::Switch) {
        let reply = match (choices(flag), flag.metavar) {
            (Some(words), _) => format!("$(compgen -W \"{words}\" -- \"$current\")"),
            (None, "FILE") => "$(compgen -f -- \"$current\")".to_owned(),
            (None, _) => String::new(),
        };
        replies.entry(reply).or_default().insert(flag.name);
    }
    replies
}

const BASH_HEAD: &str = r#"# Completion of openports for bash, from the table of flags; tested.

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
"#;

const BASH_TAIL: &str = r#"    esac
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
"#;

fn zsh() -> String {
    let mut page = String::from(ZSH_HEAD);
    let commands = Subcommand::ALL.iter().map(|(name, _, about)| (name, about));
    for (name, about) in
        commands.chain(ReferencePage::ALL.iter().map(|(name, _, about)| (name, about)))
    {
        writeln!(page, "        '{name}:{}'", quoted(about)).unwrap();
    }
    page.push_str(ZSH_MIDDLE);
    for (name, command, _) in Subcommand::ALL {
        writeln!(page, "        {name})\n            flags=(").unwrap();
        for flag in flags_of(command) {
            let repeats = if flag.arity == Arity::List { "*" } else { "" };
            let help = quoted(flag.help).replace('[', "\\[").replace(']', "\\]");
            let value = match (flag.arity, choices(flag), flag.metavar) {
                (Arity::Switch, ..) => String::new(),
                (Arity::Once | Arity::List, Some(words), metavar) => {
                    format!(":{metavar}:({words})")
                }
                (Arity::Once | Arity::List, None, "FILE") => ":FILE:_files".to_owned(),
                (Arity::Once | Arity::List, None, metavar) => {
                    format!(":{}: ", metavar.replace(':', "\\:"))
                }
            };
            let equals = if flag.arity == Arity::Switch { "" } else { "=" };
            writeln!(page, "                '{repeats}--{}{equals}[{help}]{value}'", flag.name)
                .unwrap();
        }
        if command == Subcommand::Scan {
            page.push_str("                '-p[scan these ports]:PORTS: '\n");
            page.push_str("                '-o[print into this file]:FILE:_files'\n");
            page.push_str("                '-4[use IPv4 addresses]' '-6[use IPv6 addresses]'\n");
        }
        page.push_str("            )\n            ;;\n");
    }
    page.push_str(ZSH_TAIL);
    page
}

/// Escapes a text for single quotes.
fn quoted(text: &str) -> String {
    assert!(!text.contains('\\'), "{text:?} has no backslash");
    text.replace('\'', "'\\''")
}

const ZSH_HEAD: &str = r#"#compdef openports
# Completion of openports for zsh, from the table of flags; tested.

_openports_commands() {
    local -a commands=(
"#;

const ZSH_MIDDLE: &str = r#"    )
    _describe command commands
}

_openports() {
    local command=serve word
    local -a flags rest=('1:command:_openports_commands')
    for word in ${words[2,CURRENT-1]}; do
        case $word in
            serve) rest=('1: : '); break ;;
            scan) command=scan; rest=('1: : ' '*:TARGET:_hosts'); break ;;
            help) rest=('1: : ' '2:COMMAND:(serve scan healthcheck)'); break ;;
            completions) rest=('1: : ' '2:SHELL:(bash zsh fish)'); break ;;
            man|licenses) rest=('1: : '); break ;;
            healthcheck) command=healthcheck; rest=('1: : ' '2:ADDRESS\:PORT: '); break ;;
        esac
    done
    case $command in
"#;

const ZSH_TAIL: &str = r#"    esac
    flags+=('(- *)'{-h,--help}'[print the help]' '(- *)'{-V,--version}'[print the version]')
    _arguments -S $flags $rest
}

_openports "$@"
"#;

fn fish() -> String {
    let mut page = String::from(FISH_HEAD);
    let commands = Subcommand::ALL.iter().map(|(name, _, about)| (name, about));
    for (name, about) in
        commands.chain(ReferencePage::ALL.iter().map(|(name, _, about)| (name, about)))
    {
        let none = "-n __fish_use_subcommand";
        writeln!(page, "complete -c openports {none} -a {name} -d {}", fish_quoted(about)).unwrap();
    }
    for (name, command, _) in Subcommand::ALL {
        let given = match command {
            Subcommand::Serve => "not __fish_seen_subcommand_from scan healthcheck".to_owned(),
            Subcommand::Scan | Subcommand::Healthcheck => {
                format!("__fish_seen_subcommand_from {name}")
            }
        };
        for flag in flags_of(command) {
            let value = match (flag.arity, choices(flag), flag.metavar) {
                (Arity::Switch, ..) => String::new(),
                (Arity::Once | Arity::List, Some(words), _) => format!(" -x -a '{words}'"),
                (Arity::Once | Arity::List, None, "FILE") => " -r -F".to_owned(),
                (Arity::Once | Arity::List, None, _) => " -x".to_owned(),
            };
            let help = fish_quoted(flag.help);
            writeln!(page, "complete -c openports -n '{given}' -l {}{value} -d {help}", flag.name)
                .unwrap();
        }
    }
    page
}

fn fish_quoted(text: &str) -> String {
    assert!(!text.contains('\\'), "{text:?} has no backslash");
    format!("'{}'", text.replace('\'', "\\'"))
}

const FISH_HEAD: &str = "\
# Completion of openports for fish, from the table of flags; tested.

complete -c openports -f
complete -c openports -s h -l help -d 'print the help'
complete -c openports -s V -l version -d 'print the version'
complete -c openports -n '__fish_seen_subcommand_from scan' -a '(__fish_print_hostnames)'
complete -c openports -n '__fish_seen_subcommand_from completions' -a 'bash zsh fish'
complete -c openports -n '__fish_seen_subcommand_from help' -a 'serve scan healthcheck'
complete -c openports -n '__fish_seen_subcommand_from scan' -s p -x -d 'scan these ports'
complete -c openports -n '__fish_seen_subcommand_from scan' -s o -r -F -d 'print into this file'
complete -c openports -n '__fish_seen_subcommand_from scan' -s 4 -d 'use IPv4 addresses'
complete -c openports -n '__fish_seen_subcommand_from scan' -s 6 -d 'use IPv6 addresses'
";
